#!/bin/sh
# Ask for a secret that a profile names and put it into the vault, in place of an older one: the key of a look-up, or the
# address of a target of notifications, for json-NAME its key too: scripts/store_secret.sh teams-support
set -eu
. "$(dirname "$0")/vault.sh"

name=${1:-}
case $name in
    lookup-?*)
        secret=$name
        what='Key'
        check='python -m local lookup MAILBOX ADDRESS'
        ;;
    teams-?* | slack-?* | json-?*)
        secret=notify-$name
        what='Address (https://)'
        check='python -m local notify --test MAILBOX'
        ;;
    *)
        echo "Give the name as in the profile, of a target (teams-NAME, slack-NAME or json-NAME) or of a look-up's secret" \
            "(lookup-NAME): scripts/store_secret.sh teams-support" >&2
        exit 2
        ;;
esac
if [ ! -t 0 ]; then
    echo "Not a terminal: cannot ask for the secret. Run this in a terminal: scripts/store_secret.sh $name" >&2
    exit 1
fi

find_stored "$secret" "scripts/store_secret.sh $name" # waits for the vault
ask_key "$what of $name (not shown as you type): "
value=$key
is_address=no
case $value in
    https://?*) is_address=yes ;;
esac
if [ "$secret" != "$name" ] && [ $is_address = no ]; then
    echo "Not an https address. Copy it again." >&2
    exit 1
fi
case $name in
    json-*)
        ask_key "Key for the signatures of $name (not shown as you type): "
        store "$secret-key" "$key"
        ;;
esac
store "$secret" "$value"
echo "Stored as $secret in the vault $vault. To check that it works: $check"
