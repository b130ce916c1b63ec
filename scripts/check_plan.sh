#!/bin/sh
# Before anything is created: do the regions and the subscription have what is needed, and are the names free?
set -eu
cd "$(dirname "$0")/.."
. scripts/settings.sh

# refuse WHY-AND-WHAT-TO-DO
refuse() {
    echo "Nothing was created: $*" >&2
    exit 1
}

subscription=${AZURE_SUBSCRIPTION_ID:-}
region=${AZURE_LOCATION:-}
model_region=${MODEL_LOCATION:-$region}
if [ -z "$subscription" ] || [ -z "$region" ]; then
    refuse "AZURE_SUBSCRIPTION_ID and AZURE_LOCATION are not set. Run azd up, which asks for them."
fi

# azd leaves out a value that it cannot read, and the template's default is the open one.
for setting in "VNET_ENABLED=${VNET_ENABLED:-}" "OPERATOR_FUNCTIONS_ENABLED=${OPERATOR_FUNCTIONS_ENABLED:-}"; do
    case ${setting#*=} in
        '' | true | false) ;;
        *) refuse "${setting%%=*} is ${setting#*=}, not true or false. Set it: azd env set ${setting%%=*} true (or false)." ;;
    esac
done
case ${COST_BUDGET:-} in
    *[!0-9]* | ??????????*)
        refuse "COST_BUDGET is $COST_BUDGET, not a whole number of at most nine digits. Set it, for example" \
            "azd env set COST_BUDGET 200, or 0 for no budget."
        ;;
esac

# A line for each model of infra/main.parameters.json, however the file is laid out: name, version, deployment type, capacity.
wanted=$(tr -d '[:space:]' <infra/main.parameters.json | tr '{}' '\n\n' | awk -F '"' '
    /"sku":/ {
        for (i = 2; i < NF; i++) if ($(i + 1) == ":") value[$i] = $(i + 2); else if ($i == "capacity") capacity = $(i + 1)
        gsub(/[^0-9]/, "", capacity)
        print value["name"], value["version"], value["sku"], capacity
    }')
if [ -z "$wanted" ] && [ -z "${EXISTING_MODEL_ACCOUNT_NAME:-}" ]; then
    refuse "no model was read from infra/main.parameters.json. Give triageModel and draftModel" \
        "a name, a version and a sku there, then run azd up again."
fi
tab=$(printf '\t')

# has_models REGION: whether it offers every model of infra/main.parameters.json; the status is 2 if Azure did not say.
# An account that exists has its own.
has_models() {
    [ -z "${EXISTING_MODEL_ACCOUNT_NAME:-}" ] || return 0
    offered=$(az cognitiveservices model list --location "$1" --subscription "$subscription" \
        --query '[].[model.name, model.version, to_string(model.skus[].name)]' --output tsv) || return 2
    echo "$wanted" | while read -r name version sku _; do
        echo "$offered" | grep -q "^$name$tab$version$tab.*\"$sku\"" || exit 1
    done
}

flex=$(az functionapp list-flexconsumption-locations --subscription "$subscription" --query '[].name' --output tsv) ||
    refuse "the Azure CLI did not list the regions. Sign in with az login."
problem=
if ! echo "$flex" | grep -qx "$region"; then
    problem="Flex Consumption is not offered in $region."
else
    answer=0
    has_models "$model_region" || answer=$?
    if [ "$answer" -eq 2 ]; then
        refuse "the Azure CLI did not list the models of $model_region, and says above why. If it does" \
            "not know this region, choose another: azd env set MODEL_LOCATION NAME. Then run azd up again."
    elif [ "$answer" -ne 0 ]; then
        problem="The models of infra/main.parameters.json are not offered in $model_region."
    fi
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
        --query registrationState --output tsv) ||
        refuse "the Azure CLI did not say whether the provider Microsoft.App is registered, and says above why."
    if [ "$state" != Registered ]; then
        refuse "the private network needs the provider Microsoft.App, which is $state in this" \
            "subscription. Register it, then run azd up again:" \
            "az provider register --namespace Microsoft.App --subscription $subscription --wait"
    fi
fi

if [ -z "${ALERT_EMAIL:-}" ] && ! grep -q '"actionGroupId"' infra/main.parameters.json; then
    echo "The alerts will reach nobody: ALERT_EMAIL is not set. Set it: azd env set ALERT_EMAIL you@example.com"
fi

# What an earlier run created. Without azd nothing is known of it.
group_name="rg-${AZURE_ENV_NAME:-}"
exists=false
if [ -n "${AZURE_ENV_NAME:-}" ]; then
    exists=$(az group exists --name "$group_name" --subscription "$subscription" --output json) ||
        refuse "the Azure CLI did not say whether the resource group $group_name exists, and says above why."
fi

# A private installation would open, and an open one fail: the tier of its namespace cannot be changed.
if [ "$exists" = true ]; then
    tier=$(az servicebus namespace list --resource-group "$group_name" --subscription "$subscription" \
        --query "[?starts_with(name, 'sbns-')].sku.name | [0]" --output tsv) ||
        refuse "the Azure CLI did not list the Service Bus namespaces of $group_name, and says above why."
    is_private=$([ "$tier" = Premium ] && echo true || echo false)
    if [ -n "$tier" ] && [ "${VNET_ENABLED:-false}" != "$is_private" ]; then
        refuse "VNET_ENABLED is ${VNET_ENABLED:-false}, but the installation in $group_name was created with" \
            "$is_private, and cannot be changed. Set it: azd env set VNET_ENABLED $is_private. For the other kind, remove" \
            "the installation first: azd down."
    fi
fi

# Too little quota would end the first deployment half-way; an account that exists has its own.
if [ "$exists" = false ] && [ -z "${EXISTING_MODEL_ACCOUNT_NAME:-}" ]; then
    quotas=$(az cognitiveservices usage list --location "$model_region" --subscription "$subscription" \
        --query '[].[name.value, limit]' --output tsv) ||
        echo "The Azure CLI did not say which quota there is in $model_region, and says above why."
    echo "$wanted" | while read -r name _ sku capacity; do
        limit=$(echo "$quotas" | grep -F "OpenAI.$sku.$name$tab" | cut -f 2)
        if [ "${limit%%.*}" -lt "$capacity" ] 2>/dev/null; then
            echo "The quota of $name ($sku) in $model_region is ${limit%%.*} thousand tokens a minute, less than the capacity" \
                "$capacity in infra/main.parameters.json: lower that, or ask for more quota."
        fi
    done
fi

# A budget's start cannot be changed later, so it is chosen once and kept; a pipeline finds it in Azure again.
if [ "${COST_BUDGET:-0}" -gt 0 ] && [ -z "${COST_BUDGET_START:-}" ]; then
    start=
    if [ "$exists" = true ]; then
        start=$(az consumption budget list --resource-group "$group_name" --subscription "$subscription" \
            --query "[?starts_with(name, 'budget-')].timePeriod.startDate | [0]" --output tsv) ||
            refuse "the Azure CLI did not list the budgets of $group_name, and says above why."
    fi
    start=${start%%T*}
    azd env set COST_BUDGET_START "${start:-$(date -u +%Y-%m-01)}"
fi

# find_own PREFIX REGION: those of a list of deleted resources, each with its region, whose name infra/main.bicep makes from it.
find_own() {
    grep "^$1[a-z0-9]\{13\}$tab$2\$" | cut -f 1
}

# A deleted vault keeps its name for days, and a deleted model account too: those of this installation are restored.
if [ -n "${AZURE_ENV_NAME:-}" ]; then
    group="/resourceGroups/$group_name/"
    vaults=$(az keyvault list-deleted --resource-type vault --subscription "$subscription" \
        --query "[?contains(properties.vaultId, '$group')].[name, properties.location]" --output tsv) ||
        refuse "the Azure CLI did not list the deleted vaults, and says above why."
    vaults=$(echo "$vaults" | find_own kv- "$region")
    accounts=
    if [ -z "${EXISTING_MODEL_ACCOUNT_NAME:-}" ]; then
        accounts=$(az cognitiveservices account list-deleted --subscription "$subscription" \
            --query "[?contains(id, '$group')].[name, location]" --output tsv) ||
            refuse "the Azure CLI did not list the deleted model accounts, and says above why."
        accounts=$(echo "$accounts" | find_own oai- "$model_region")
    fi
    azd env set RECOVER_VAULT "$([ -n "$vaults" ] && echo true || echo false)"
    azd env set RESTORE_MODEL_ACCOUNT "$([ -n "$accounts" ] && echo true || echo false)"
    if [ -n "$vaults$accounts" ]; then
        echo "Restored from the earlier installation:" $vaults $accounts
    fi
    if [ -n "$vaults" ]; then
        echo "A vault comes back with the properties and tags that it had. To give it those of infra/, run azd provision" \
            "once more afterwards."
    fi
fi
