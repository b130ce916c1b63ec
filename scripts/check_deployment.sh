#!/bin/sh
# After a deployment: are the functions there, does the app reach its ledger, did a poll succeed?
set -eu

app=${FUNCTION_APP_NAME:-$(azd env get-value FUNCTION_APP_NAME)}
host=${FUNCTION_APP_HOST:-$(azd env get-value FUNCTION_APP_HOST)}
group=${AZURE_RESOURCE_GROUP:-$(azd env get-value AZURE_RESOURCE_GROUP)}
subscription=${AZURE_SUBSCRIPTION_ID:-$(azd env get-value AZURE_SUBSCRIPTION_ID)}
workspace=${WORKSPACE_ID:-$(azd env get-value WORKSPACE_ID)}
query=$(grep -v '^//' "$(dirname "$0")/../infra/queries/last-poll.kql")
pause=${RETRY_SECONDS:-20}

has_functions() {
    indexed=$(az functionapp function list --name "$app" --resource-group "$group" --subscription "$subscription" \
        --query '[].name' --output tsv) &&
        for function in poll_inboxes process_email track_replies notify_people receive_webhook ask_agent report review health; do
            echo "$indexed" | grep -q "$function" || return 1
        done
}

is_healthy() {
    curl --silent --show-error --fail --max-time 60 --output /dev/null "https://$host/api/health"
}

# Telemetry takes some minutes to become readable.
has_polled() {
    polls=$(az rest --method get --url "https://api.loganalytics.io/v1/workspaces/$workspace/query" \
        --subscription "$subscription" --resource https://api.loganalytics.io --url-parameters "query=$query" \
        --query 'tables[0].rows[0][0]' --output tsv) && [ "${polls:-0}" -gt 0 ]
}

# Without a key the agent waits for one: in the first run of a pipeline nobody can type it. An identity that may not
# look into the vault, such as the deployer of a tag, goes on to the poll.
lacks_key() {
    vault=${KEY_VAULT_NAME:-$(azd env get-value KEY_VAULT_NAME 2>/dev/null)} || return 1
    name=${MULTIMAIL_API_KEY_SECRET_NAME:-multimail-api-key}
    stored=$(az keyvault secret list --vault-name "$vault" --subscription "$subscription" \
        --query "[?name=='$name'].name" --output tsv 2>/dev/null) || return 1
    [ -z "$stored" ]
}

# wait_for CHECK MINUTES WHAT-IS-CHECKED WHAT-TO-DO
wait_for() {
    tries=$(($2 * 3))
    echo "Waiting until $3 (up to $2 minutes)"
    until "$1"; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            echo "Timed out before $3. $4" >&2
            exit 1
        fi
        sleep "$pause"
    done
}

wait_for has_functions 5 "the functions are indexed" \
    "The app does not start. Look at the table FunctionAppLogs in the workspace."
wait_for is_healthy 10 "the app reaches its ledger" \
    "New roles take up to ten minutes. After that, look for 'the health check failed' in AppTraces."
if lacks_key; then
    echo "The agent is deployed and has no MultiMail key yet. Store it in a terminal, as an operator with the role" \
        "Key Vault Secrets Officer: scripts/store_key.sh"
    exit 0
fi
wait_for has_polled 15 "a poll succeeded" \
    "Store the MultiMail key (scripts/store_key.sh), then look at the errors in the workbook."
echo "The agent is running."
