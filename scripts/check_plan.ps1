#!/usr/bin/env pwsh
#Requires -Version 7.2
# Before anything is created: do the regions and the subscription have what is needed, and are the names free?
. "$PSScriptRoot/settings.ps1"
Set-Location (Join-Path $PSScriptRoot '..')

$subscription = $env:AZURE_SUBSCRIPTION_ID
$region = $env:AZURE_LOCATION
$modelRegion = if ($env:MODEL_LOCATION) { $env:MODEL_LOCATION } else { $region }
if (-not $subscription -or -not $region) {
    Stop-Script ('Nothing was created: AZURE_SUBSCRIPTION_ID and AZURE_LOCATION are not set. ' +
        'Run azd up, which asks for them.')
}

# azd leaves out a value that it cannot read, and the template's default is the open one.
foreach ($setting in "VNET_ENABLED=$($env:VNET_ENABLED)", "OPERATOR_FUNCTIONS_ENABLED=$($env:OPERATOR_FUNCTIONS_ENABLED)") {
    $name, $value = $setting -split '=', 2
    if ('', 'true', 'false' -cnotcontains $value) {
        Stop-Script "Nothing was created: $name is $value, not true or false. Set it: azd env set $name true (or false)."
    }
}
if ($env:COST_BUDGET -and $env:COST_BUDGET -cnotmatch '^[0-9]{1,9}$') {
    Stop-Script ("Nothing was created: COST_BUDGET is $($env:COST_BUDGET), not a whole number of at most nine digits. Set it, " +
        'for example azd env set COST_BUDGET 200, or 0 for no budget.')
}

$parameters = (Get-Content infra/main.parameters.json -Raw | ConvertFrom-Json).parameters
$wanted = @($parameters.PSObject.Properties.Value.value | Where-Object { $_.sku })
if (-not $wanted -and -not $env:EXISTING_MODEL_ACCOUNT_NAME) {
    Stop-Script ('Nothing was created: no model was read from infra/main.parameters.json. Give triageModel and draftModel ' +
        'a name, a version and a sku there, then run azd up again.')
}

# Test-Models REGION: whether it offers every model of infra/main.parameters.json; $null if Azure did not say.
# An account that exists has its own.
function Test-Models([string]$Candidate) {
    if ($env:EXISTING_MODEL_ACCOUNT_NAME) { return $true }
    $offered = az cognitiveservices model list --location $Candidate --subscription $subscription `
        --query '[].[model.name, model.version, to_string(model.skus[].name)]' --output tsv
    if ($LASTEXITCODE -ne 0) { return $null }
    foreach ($model in $wanted) {
        $line = "$($model.name)`t$($model.version)`t*`"$($model.sku)`"*"
        if (-not ($offered -clike $line)) { return $false }
    }
    return $true
}

$flex = @(az functionapp list-flexconsumption-locations --subscription $subscription --query '[].name' --output tsv)
if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: the Azure CLI did not list the regions. Sign in with az login.' }
$problem = if ($flex -cnotcontains $region) {
    "Flex Consumption is not offered in $region."
} else {
    $answer = Test-Models $modelRegion
    if ($null -eq $answer) {
        Stop-Script ("Nothing was created: the Azure CLI did not list the models of $modelRegion, and says above why. If it " +
            'does not know this region, choose another: azd env set MODEL_LOCATION NAME. Then run azd up again.')
    } elseif (-not $answer) {
        "The models of infra/main.parameters.json are not offered in $modelRegion."
    }
}
if ($problem) {
    [Console]::Error.WriteLine(
        "Nothing was created: $problem These regions have both (looking for them takes some minutes):")
    $flex | Where-Object { Test-Models $_ 2>$null } | ForEach-Object { [Console]::Error.WriteLine("  $_") }
    Stop-Script ('Choose one for everything, azd env set AZURE_LOCATION NAME, or one for the models alone, ' +
        'azd env set MODEL_LOCATION NAME. Then run azd up again.')
}

if ($env:VNET_ENABLED -ceq 'true') {
    $state = az provider show --namespace Microsoft.App --subscription $subscription `
        --query registrationState --output tsv
    if ($LASTEXITCODE -ne 0) {
        Stop-Script ('Nothing was created: the Azure CLI did not say whether the provider Microsoft.App is registered, ' +
            'and says above why.')
    }
    if ($state -cne 'Registered') {
        Stop-Script ("Nothing was created: the private network needs the provider Microsoft.App, which is $state in this " +
            'subscription. Register it, then run azd up again: ' +
            "az provider register --namespace Microsoft.App --subscription $subscription --wait")
    }
}

if (-not $env:ALERT_EMAIL -and -not (Select-String '"actionGroupId"' infra/main.parameters.json -SimpleMatch -Quiet)) {
    Write-Host 'The alerts will reach nobody: ALERT_EMAIL is not set. Set it: azd env set ALERT_EMAIL you@example.com'
}

# What an earlier run created. Without azd nothing is known of it.
$groupName = "rg-$($env:AZURE_ENV_NAME)"
$exists = $false
if ($env:AZURE_ENV_NAME) {
    $answer = az group exists --name $groupName --subscription $subscription --output json
    if ($LASTEXITCODE -ne 0) {
        Stop-Script ("Nothing was created: the Azure CLI did not say whether the resource group $groupName exists, and says " +
            'above why.')
    }
    $exists = $answer -ceq 'true'
}

# A private installation would open, and an open one fail: the tier of its namespace cannot be changed.
if ($exists) {
    $tier = az servicebus namespace list --resource-group $groupName --subscription $subscription `
        --query "[?starts_with(name, 'sbns-')].sku.name | [0]" --output tsv
    if ($LASTEXITCODE -ne 0) {
        Stop-Script ("Nothing was created: the Azure CLI did not list the Service Bus namespaces of $groupName, and says " +
            'above why.')
    }
    $wantsPrivate = if ($env:VNET_ENABLED) { $env:VNET_ENABLED } else { 'false' }
    $isPrivate = if ($tier -ceq 'Premium') { 'true' } else { 'false' }
    if ($tier -and $wantsPrivate -cne $isPrivate) {
        Stop-Script ("Nothing was created: VNET_ENABLED is $wantsPrivate, but the installation in $groupName was created with " +
            "$isPrivate, and cannot be changed. Set it: azd env set VNET_ENABLED $isPrivate. For the other kind, remove " +
            'the installation first: azd down.')
    }
}

# Too little quota would end the first deployment half-way; an account that exists has its own.
if (-not $exists -and -not $env:EXISTING_MODEL_ACCOUNT_NAME) {
    $quotas = az cognitiveservices usage list --location $modelRegion --subscription $subscription `
        --query '[].[name.value, limit]' --output tsv
    if ($LASTEXITCODE -ne 0) {
        Write-Host "The Azure CLI did not say which quota there is in $modelRegion, and says above why."
    }
    foreach ($model in $wanted) {
        $row = $quotas | Where-Object { $_ -clike "OpenAI.$($model.sku).$($model.name)`t*" } | Select-Object -First 1
        if (-not $row) { continue }
        $limit = ($row -split "`t")[1] -replace '\..*'
        if ([long]$limit -lt $model.capacity) {
            Write-Host ("The quota of $($model.name) ($($model.sku)) in $modelRegion is $limit thousand tokens a minute, " +
                "less than the capacity $($model.capacity) in infra/main.parameters.json: lower that, or ask for more quota.")
        }
    }
}

# A budget's start cannot be changed later, so it is chosen once and kept; a pipeline finds it in Azure again.
if ([int]"0$env:COST_BUDGET" -gt 0 -and -not $env:COST_BUDGET_START) {
    $start = $null
    if ($exists) {
        $start = az consumption budget list --resource-group $groupName --subscription $subscription `
            --query "[?starts_with(name, 'budget-')].timePeriod.startDate | [0]" --output tsv
        if ($LASTEXITCODE -ne 0) {
            Stop-Script "Nothing was created: the Azure CLI did not list the budgets of $groupName, and says above why."
        }
    }
    $start = if ($start) { ($start -split 'T')[0] } else { [DateTime]::UtcNow.ToString('yyyy-MM-01') }
    azd env set COST_BUDGET_START $start
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: azd did not keep COST_BUDGET_START.' }
}

# Select-Own PREFIX REGION: those of a list of deleted resources, each with its region, whose name infra/main.bicep makes
# from it.
function Select-Own([string]$Prefix, [string]$Region) {
    $input | Where-Object { $_ -cmatch "^${Prefix}[a-z0-9]{13}`t$Region$" } | ForEach-Object { ($_ -split "`t")[0] }
}

# A deleted vault keeps its name for days, and a deleted model account too: those of this installation are restored.
if ($env:AZURE_ENV_NAME) {
    $group = "/resourceGroups/$groupName/"
    $vaults = az keyvault list-deleted --resource-type vault --subscription $subscription `
        --query "[?contains(properties.vaultId, '$group')].[name, properties.location]" --output tsv
    if ($LASTEXITCODE -ne 0) {
        Stop-Script 'Nothing was created: the Azure CLI did not list the deleted vaults, and says above why.'
    }
    $vaults = @($vaults | Select-Own 'kv-' $region)
    $accounts = @()
    if (-not $env:EXISTING_MODEL_ACCOUNT_NAME) {
        $accounts = az cognitiveservices account list-deleted --subscription $subscription `
            --query "[?contains(id, '$group')].[name, location]" --output tsv
        if ($LASTEXITCODE -ne 0) {
            Stop-Script 'Nothing was created: the Azure CLI did not list the deleted model accounts, and says above why.'
        }
        $accounts = @($accounts | Select-Own 'oai-' $modelRegion)
    }
    azd env set RECOVER_VAULT "$(if ($vaults) { 'true' } else { 'false' })"
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: azd did not keep RECOVER_VAULT.' }
    azd env set RESTORE_MODEL_ACCOUNT "$(if ($accounts) { 'true' } else { 'false' })"
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: azd did not keep RESTORE_MODEL_ACCOUNT.' }
    if ($vaults -or $accounts) {
        Write-Host "Restored from the earlier installation: $($vaults + $accounts)"
    }
    if ($vaults) {
        Write-Host ('A vault comes back with the properties and tags that it had. To give it those of infra/, run ' +
            'azd provision once more afterwards.')
    }
}
