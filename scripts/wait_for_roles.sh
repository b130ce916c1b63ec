#!/bin/sh
# Before the first upload: wait until the app's identity may use its storage. A new role takes up to ten minutes.
set -eu
. "$(dirname "$0")/settings.sh"

app=$(get_setting FUNCTION_APP_NAME)
group=$(get_setting AZURE_RESOURCE_GROUP)
subscription=$(get_setting AZURE_SUBSCRIPTION_ID)
pause=${RETRY_SECONDS:-20}

functions=$(az functionapp function list --name "$app" --resource-group "$group" --subscription "$subscription" \
    --query '[].name' --output tsv 2>/dev/null) || functions=
if [ -n "$functions" ]; then exit 0; fi # an earlier upload arrived, so the role has

# The host keeps its keys in the same storage, by the same identity.
has_role() {
    az functionapp keys list --name "$app" --resource-group "$group" --subscription "$subscription" \
        --output none 2>/dev/null
}

echo "First upload: waiting until the app may use its storage (up to five minutes)." \
    "If the upload is refused with 403 all the same, the role has not arrived everywhere: run azd deploy again."
tries=15
until has_role; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then exit 0; fi
    sleep "$pause"
done
