#!/bin/sh
# Before anything is created: do the regions and the subscription have what is needed, and are the names free?
set -eu
cd "$(dirname "$0")/.."

subscription=${AZURE_SUBSCRIPTION_ID:-}
region=${AZURE_LOCATION:-}
model_region=${MODEL_LOCATION:-$region}
if [ -z "$subscription" ] || [ -z "$region" ]; then
    echo "Nothing was created: AZURE_SUBSCRIPTION_ID and AZURE_LOCATION are not set. Run azd up, which asks for them." >&2
    exit 1
fi

# A budget's start cannot be changed later, so it is chosen once and kept; a pipeline finds it in Azure again.
if [ "${COST_BUDGET:-0}" -gt 0 ] && [ -z "${COST_BUDGET_START:-}" ]; then
    start=$(az consumption budget list --resource-group "rg-${AZURE_ENV_NAME:-}" --subscription "$subscription" \
        --query "[?starts_with(name, 'budget-')].timePeriod.startDate" --output tsv 2>/dev/null | cut -c 1-10)
    azd env set COST_BUDGET_START "${start:-$(date -u +%Y-%m-01)}"
fi

wanted=$(sed -n 's/.*"name": "\([^"]*\)", "version": "\([^"]*\)", "sku": "\([^"]*\)".*/\1 \2 \3/p' infra/main.parameters.json)
tab=$(printf '\t')

# has_models REGION: whether it offers every model of infra/main.parameters.json. An account that exists has its own.
has_models() {
    [ -z "${EXISTING_MODEL_ACCOUNT_NAME:-}" ] || return 0
    offered=$(az cognitiveservices model list --location "$1" --subscription "$subscription" \
        --query '[].[model.name, model.version, to_string(model.skus[].name)]' --output tsv) || return 1
    echo "$wanted" | while read -r name version sku; do
        echo "$offered" | grep -q "^$name$tab$version$tab.*\"$sku\"" || exit 1
    done
}

flex=$(az functionapp list-flexconsumption-locations --subscription "$subscription" --query '[].name' --output tsv) || {
    echo "Nothing was created: the Azure CLI did not list the regions. Sign in with az login." >&2
    exit 1
}
problem=
if ! echo "$flex" | grep -qx "$region"; then
    problem="Flex Consumption is not offered in $region."
elif ! has_models "$model_region"; then
    problem="The models of infra/main.parameters.json are not offered in $model_region."
fi
if [ -n "$problem" ]; then
    echo "Nothing was created: $problem These regions have both (looking for them takes some minutes):" >&2
    for candidate in $flex; do
        if has_models "$candidate" 2>/dev/null; then echo "  $candidate" >&2; fi
    done
    echo "Choose one for everything, azd env set AZURE_LOCATION NAME, or one for the models alone," \
        "azd env set MODEL_LOCATION NAME. Then run azd up again." >&2
    exit 1
fi

if [ "${VNET_ENABLED:-false}" = true ]; then
    state=$(az provider show --namespace Microsoft.App --subscription "$subscription" \
        --query registrationState --output tsv)
    if [ "$state" != Registered ]; then
        echo "Nothing was created: the private network needs the provider Microsoft.App, which is $state in this" \
            "subscription. Register it, then run azd up again:" \
            "az provider register --namespace Microsoft.App --subscription $subscription --wait" >&2
        exit 1
    fi
fi

# A deleted vault keeps its name for days, and a deleted model account too: those of this installation are taken up again.
if [ -n "${AZURE_ENV_NAME:-}" ]; then
    group="/resourceGroups/rg-$AZURE_ENV_NAME/"
    vaults=$(az keyvault list-deleted --resource-type vault --subscription "$subscription" \
        --query "[?contains(properties.vaultId, '$group') && properties.location=='$region'].name" --output tsv)
    azd env set RECOVER_VAULT "$([ -n "$vaults" ] && echo true || echo false)"
    accounts=$(az cognitiveservices account list-deleted --subscription "$subscription" \
        --query "[?contains(id, '$group') && location=='$model_region'].name" --output tsv)
    azd env set RESTORE_MODEL_ACCOUNT "$([ -n "$accounts" ] && echo true || echo false)"
    if [ -n "$vaults$accounts" ]; then echo "Taken up again, as deleted with an earlier installation:" $vaults $accounts; fi
fi
