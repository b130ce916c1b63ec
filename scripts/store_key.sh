#!/bin/sh
# Ask for the MultiMail key and put it into the vault, unless it is there (--replace: even if it is).
set -eu
. "$(dirname "$0")/vault.sh"

name=${MULTIMAIL_API_KEY_SECRET_NAME:-multimail-api-key}
find_stored "$name" scripts/store_key.sh || {
    # A hook of azd's: what was created is deployed, and the key can be stored later.
    if [ $? -eq 2 ] || ! can_ask; then exit 0; fi
    exit 1
}
if [ -n "$stored" ] && [ "${1:-}" != --replace ]; then
    echo "The MultiMail key is in the vault $vault. To replace it: scripts/store_key.sh --replace"
    exit 0
fi
if ! can_ask; then
    echo "Not a terminal: cannot ask for the MultiMail key. Run this in a terminal: scripts/store_key.sh"
    exit 0
fi

ask_key 'MultiMail key (scopes read and send; not shown as you type): '
store "$name" "$key"
echo "Stored as $name in the vault $vault."
