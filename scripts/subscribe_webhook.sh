#!/bin/sh
# Subscribe the agent to MultiMail's events and put their signing secret into the vault, unless there is one
# (--replace: even if there is). It asks for a key with the scope admin, which is used once and kept nowhere.
set -eu
. "$(dirname "$0")/vault.sh"

host=$(get_setting FUNCTION_APP_HOST)
api=${MULTIMAIL_API_URL:-https://api.multimail.dev}
name=${MULTIMAIL_WEBHOOK_SECRET_NAME:-multimail-webhook-secret}
events='"message.received","message.delivered","message.bounced","oversight.approved","oversight.rejected"'

find_stored "$name" "$0" || exit 1
if [ -n "$stored" ] && [ "${1:-}" != --replace ]; then
    echo "The agent is subscribed: the vault $vault has $name. To do it again: $0 --replace"
    exit 0
fi

if ! can_ask; then
    echo "Not a terminal: cannot ask for a MultiMail key. Run this in a terminal: $0" >&2
    exit 1
fi

ask_key 'MultiMail key (scope admin, used once; not shown as you type): '
# The answer is the only place that ever shows the signing secret, so it is not printed.
answer=$(printf 'header = "Authorization: Bearer %s"\n' "$key" | curl --silent --show-error --fail --max-time 60 \
    --config - --header 'Content-Type: application/json' \
    --data "{\"url\": \"https://$host/api/webhook\", \"events\": [$events]}" "$api/v1/webhooks")
secret=$(printf '%s' "$answer" | tr -d '\n' | sed -n 's/.*"signing_secret" *: *"\([^"]*\)".*/\1/p')
if [ -z "$secret" ]; then
    echo "MultiMail's answer has no signing secret. Remove the new subscription in MultiMail's dashboard and try again." >&2
    exit 1
fi
if ! store "$name" "$secret"; then
    echo "Subscribed, but storing the signing secret failed. Remove the subscription in MultiMail's dashboard," \
        "then run $0 again." >&2
    exit 1
fi
echo "Subscribed. The signing secret is $name in the vault $vault; the agent finds it within a minute."
