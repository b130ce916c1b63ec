#!/bin/sh
# Ask for the MultiMail key and put it into the vault, unless it is there (--replace: even if it is). The key of the
# audit trail is made here, once: what was written under it could not be checked with another.
set -eu
. "$(dirname "$0")/vault.sh"

# look_for NAME: as find_stored. This is a hook of azd's: what was created is deployed, and a key can be stored later.
look_for() {
    find_stored "$1" scripts/store_key.sh || {
        if [ $? -eq 2 ] || ! can_ask; then exit 0; fi
        exit 1
    }
}

audit_name=${AUDIT_KEY_SECRET_NAME:-audit-key}
look_for "$audit_name"
if [ -z "$stored" ]; then
    store "$audit_name" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
    echo "Stored a new key of the audit trail as $audit_name in the vault $vault."
fi

name=${MULTIMAIL_API_KEY_SECRET_NAME:-multimail-api-key}
look_for "$name"
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
