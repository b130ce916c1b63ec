#!/bin/sh
# Ask for the MultiMail key and put it into the vault, unless it is there (--replace: even if it is).
# The key goes from the keyboard through a pipe: never into a file, an argument list, an environment
# or a shell's history.
set -eu
set +x

vault=${KEY_VAULT_NAME:-$(azd env get-value KEY_VAULT_NAME)}
name=${MULTIMAIL_API_KEY_SECRET:-multimail-api-key}
tries=20
pause=${RETRY_SECONDS:-15}

# A new role takes minutes to arrive at the vault.
until stored=$(az keyvault secret list --vault-name "$vault" --query "[?name=='$name'].name" --output tsv); do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "The vault $vault cannot be read. Sign in with az login as the operator who has the role" \
            "Key Vault Secrets Officer there, from a network that the vault admits." >&2
        exit 1
    fi
    echo "The vault $vault does not answer yet, which is usual right after its creation. Waiting."
    sleep "$pause"
done

if [ -n "$stored" ] && [ "${1:-}" != --replace ]; then
    echo "The MultiMail key is in the vault $vault. To replace it: scripts/store_key.sh --replace"
    exit 0
fi
if [ ! -t 0 ]; then
    echo "Nobody is here to type the MultiMail key. Store it from a terminal: scripts/store_key.sh"
    exit 0
fi

trap 'stty echo' EXIT
trap 'exit 130' INT TERM
stty -echo
printf 'MultiMail key (scopes read and send; nothing is shown): '
IFS= read -r key
stty echo
echo

case $key in
    '' | *[!!-~]*)
        echo "That is no key: it is empty, or holds white space or characters outside ASCII." >&2
        exit 1
        ;;
esac

# printf is built into the shell, so the key is in no process's arguments.
printf '%s' "$key" | az keyvault secret set --vault-name "$vault" --name "$name" \
    --file /dev/stdin --encoding utf-8 --output none
echo "Stored as $name in the vault $vault."
