#!/usr/bin/env pwsh
#Requires -Version 7.0
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

# A budget's start cannot be changed later, so it is chosen once and kept; a pipeline finds it in Azure again.
if ([int]"0$env:COST_BUDGET" -gt 0 -and -not $env:COST_BUDGET_START) {
    $start = az consumption budget list --resource-group "rg-$($env:AZURE_ENV_NAME)" --subscription $subscription `
        --query "[?starts_with(name, 'budget-')].timePeriod.startDate" --output tsv 2>$null
    $start = if ($start) { "$start".Substring(0, 10) } else { [DateTime]::UtcNow.ToString('yyyy-MM-01') }
    azd env set COST_BUDGET_START $start
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: azd did not keep COST_BUDGET_START.' }
}

$parameters = (Get-Content infra/main.parameters.json -Raw | ConvertFrom-Json).parameters
$wanted = @($parameters.PSObject.Properties.Value.value | Where-Object { $_.sku })

# Test-Models REGION: whether it offers every model of infra/main.parameters.json. An account that exists has its own.
function Test-Models([string]$Candidate) {
    if ($env:EXISTING_MODEL_ACCOUNT_NAME) { return $true }
    $offered = az cognitiveservices model list --location $Candidate --subscription $subscription `
        --query '[].[model.name, model.version, to_string(model.skus[].name)]' --output tsv
    if ($LASTEXITCODE -ne 0) { return $false }
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
} elseif (-not (Test-Models $modelRegion)) {
    "The models of infra/main.parameters.json are not offered in $modelRegion."
}
if ($problem) {
    [Console]::Error.WriteLine(
        "Nothing was created: $problem These regions have both (looking for them takes some minutes):")
    $flex | Where-Object { Test-Models $_ } | ForEach-Object { [Console]::Error.WriteLine("  $_") }
    Stop-Script ('Choose one for everything, azd env set AZURE_LOCATION NAME, or one for the models alone, ' +
        'azd env set MODEL_LOCATION NAME. Then run azd up again.')
}

if ($env:VNET_ENABLED -eq 'true') {
    $state = az provider show --namespace Microsoft.App --subscription $subscription `
        --query registrationState --output tsv
    if ($state -cne 'Registered') {
        Stop-Script ("Nothing was created: the private network needs the provider Microsoft.App, which is $state in this " +
            'subscription. Register it, then run azd up again: ' +
            "az provider register --namespace Microsoft.App --subscription $subscription --wait")
    }
}

# A deleted vault keeps its name for days, and a deleted model account too: those of this installation are taken up again.
if ($env:AZURE_ENV_NAME) {
    $group = "/resourceGroups/rg-$($env:AZURE_ENV_NAME)/"
    $vaults = az keyvault list-deleted --resource-type vault --subscription $subscription `
        --query "[?contains(properties.vaultId, '$group') && properties.location=='$region'].name" --output tsv
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: the Azure CLI did not list the deleted vaults.' }
    azd env set RECOVER_VAULT "$(if ($vaults) { 'true' } else { 'false' })"
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: azd did not keep RECOVER_VAULT.' }
    $accounts = az cognitiveservices account list-deleted --subscription $subscription `
        --query "[?contains(id, '$group') && location=='$modelRegion'].name" --output tsv
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: the Azure CLI did not list the deleted accounts.' }
    azd env set RESTORE_MODEL_ACCOUNT "$(if ($accounts) { 'true' } else { 'false' })"
    if ($LASTEXITCODE -ne 0) { Stop-Script 'Nothing was created: azd did not keep RESTORE_MODEL_ACCOUNT.' }
    if ($vaults -or $accounts) {
        Write-Host "Taken up again, as deleted with an earlier installation: $vaults $accounts"
    }
}
