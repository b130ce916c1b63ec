#!/bin/sh
# Ask for the address of a target of notifications and put it into the vault, in place of an older one; for json-NAME its
# key too: scripts/store_target.sh teams-support
set -eu
. "$(dirname "$0")/vault.sh"

target=${1:-}
case $target in
    teams-?* | slack-?* | json-?*) ;;
    *)
        echo "Give the target's name as in the profile (teams-NAME, slack-NAME or json-NAME): scripts/store_target.sh teams-support" >&2
        exit 2
        ;;
esac
if [ ! -t 0 ]; then
    echo "Not a terminal: cannot ask for the address. Run this in a terminal: scripts/store_target.sh $target" >&2
    exit 1
fi

find_stored "notify-$target" "scripts/store_target.sh $target" # waits for the vault
ask_key "Address of $target (https://; not shown as you type): "
address=$key
case $address in
    https://?*) ;;
    *)
        echo "Not an https address. Copy it again." >&2
        exit 1
        ;;
esac
case $target in
    json-*)
        ask_key "Key for the signatures of $target (not shown as you type): "
        store "notify-$target-key" "$key"
        ;;
esac
store "notify-$target" "$address"
echo "Stored as notify-$target in the vault $vault. To check that it arrives: python -m local notify --test MAILBOX"
