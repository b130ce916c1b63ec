# Sourced by the scripts that put a secret into the vault. A secret goes from the keyboard through pipes: never
# into a file, an argument list, an environment or a shell's history.
set +x

vault=${KEY_VAULT_NAME:-$(azd env get-value KEY_VAULT_NAME)}
subscription=${AZURE_SUBSCRIPTION_ID:-$(azd env get-value AZURE_SUBSCRIPTION_ID)}
pause=${RETRY_SECONDS:-15}

# find_stored NAME: print NAME if the vault holds such a secret. A new role takes minutes to arrive there.
find_stored() {
    tries=40 # ten minutes, as long as a new role may take
    until az keyvault secret list --vault-name "$vault" --subscription "$subscription" \
        --query "[?name=='$1'].name" --output tsv; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            echo "Reading the vault $vault failed. Sign in with az login as the operator who has the role" \
                "Key Vault Secrets Officer there, from a network that the vault allows; then run azd up again, or this" \
                "script by itself." >&2
            return 1
        fi
        echo "The vault $vault does not answer yet, which is normal right after its creation. Waiting." >&2
        sleep "$pause"
    done
}

# ask_key PROMPT: read a key, or an address that is one, into $key, unseen.
ask_key() {
    trap 'stty echo' EXIT
    trap 'exit 130' INT TERM
    stty -echo
    printf '%s' "$1"
    IFS= read -r key
    stty echo
    echo
    case $key in
        '' | *[!!-~]*)
            echo "Not a valid key or address: it is empty, or contains white space or characters outside ASCII." >&2
            exit 1
            ;;
    esac
}

# store NAME VALUE. printf is built into the shell, and the Azure CLI reads the value from its standard input (@-): so it
# is in no process's arguments.
store() {
    printf '%s' "$2" | az keyvault secret set --vault-name "$vault" --subscription "$subscription" --name "$1" \
        --value '@-' --output none
}
