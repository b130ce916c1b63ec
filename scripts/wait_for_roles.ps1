#!/usr/bin/env pwsh
#Requires -Version 7.0
# Before the first upload: wait until the app's identity may use its storage. A new role takes up to ten minutes.
. "$PSScriptRoot/settings.ps1"

$app = Get-Setting FUNCTION_APP_NAME
$group = Get-Setting AZURE_RESOURCE_GROUP
$subscription = Get-Setting AZURE_SUBSCRIPTION_ID
$pause = if ($env:RETRY_SECONDS) { $env:RETRY_SECONDS } else { 20 }

$functions = az functionapp function list --name $app --resource-group $group --subscription $subscription `
    --query '[].name' --output tsv 2>$null
if ($LASTEXITCODE -eq 0 -and $functions) { exit 0 } # an earlier upload arrived, so the role has

# The host keeps its keys in the same storage, by the same identity.
function Test-Role {
    az functionapp keys list --name $app --resource-group $group --subscription $subscription `
        --output none 2>$null
    return $LASTEXITCODE -eq 0
}

Write-Host ('First upload: waiting until the app may use its storage (up to five minutes). ' +
    'If the upload is refused with 403 all the same, the role has not arrived everywhere: run azd deploy again.')
for ($tries = 15; -not (Test-Role); $tries--) {
    if ($tries -eq 1) { exit 0 }
    Start-Sleep -Seconds $pause
}
exit 0
