# Sourced by the scripts that put a secret into the vault. A secret goes from the keyboard through pipes: never
# into a file, an argument list, an environment or a shell's history.
set +x
. "$(dirname "$0")/settings.sh"

vault=$(get_setting KEY_VAULT_NAME)
subscription=$(get_setting AZURE_SUBSCRIPTION_ID)
pause=${RETRY_SECONDS:-15}

# can_ask: whether somebody is there to type.
can_ask() {
    [ -t 0 ] && [ -z "${CI:-}" ]
}

# find_stored NAME COMMAND: put NAME into $stored if the vault holds such a secret. A new role, and a new vault's name,
# take minutes to arrive: where somebody waits they are waited for. The status is 2 if the vault is closed to this network.
find_stored() {
    tries=40 # ten minutes, as long as a new role may take
    can_ask || tries=1
    until answer=$(az keyvault secret list --vault-name "$vault" --subscription "$subscription" \
        --query "[?name=='$1'].name" --output tsv --only-show-errors 2>&1); do
        echo "$answer" >&2
        if is_closed "$answer"; then
            echo "The vault $vault answers only inside its network. On a machine there:" \
                "export AZURE_SUBSCRIPTION_ID=$subscription KEY_VAULT_NAME=$vault, az login, $2" >&2
            return 2
        fi
        case $answer in
            *ForbiddenByRbac* | *"Failed to resolve"* | *"Name or service not known"* | *getaddrinfo* | *nodename*) ;;
            *) tries=1 ;; # another try would get the same answer
        esac
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            echo "Reading the vault $vault failed, and the Azure CLI says above why. Run az login as the operator who" \
                "has the role Key Vault Secrets Officer there; then run azd up again, or in a terminal $2" >&2
            return 1
        fi
        echo "The vault $vault does not answer yet, which is normal right after its creation. Waiting." >&2
        sleep "$pause"
    done
    stored=$(echo "$answer" | grep -Fx "$1") || stored=
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
