#!/usr/bin/env pwsh
#Requires -Version 7.2
# After a deployment: are the functions there, does the app reach its ledger, did a poll succeed?
. "$PSScriptRoot/settings.ps1"

$app = Get-Setting FUNCTION_APP_NAME
$hostName = Get-Setting FUNCTION_APP_HOST
$group = Get-Setting AZURE_RESOURCE_GROUP
$subscription = Get-Setting AZURE_SUBSCRIPTION_ID
$workspace = Get-Setting WORKSPACE_NAME
$lines = Get-Content "$PSScriptRoot/../infra/queries/last-poll.kql" | Where-Object { $_ -notlike '//*' }
$query = $lines -join ' ' # on Windows an argument ends where its line does
$start = [DateTime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ssZ') # the version that was replaced polled until now
$pause = if ($env:RETRY_SECONDS) { $env:RETRY_SECONDS } else { 20 }

function Test-Functions {
    $indexed = az functionapp function list --name $app --resource-group $group --subscription $subscription `
        --query '[].name' --output tsv
    if ($LASTEXITCODE -ne 0) { return $false }
    foreach ($function in -split 'poll_inboxes process_email track_replies notify_people receive_webhook ask_agent report review health') {
        if (-not ("$indexed" -match $function)) { return $false }
    }
    return $true
}

function Test-Health {
    try {
        Invoke-WebRequest -UseBasicParsing -Uri "https://$hostName/api/health" -TimeoutSec 60 | Out-Null
        return $true
    } catch {
        [Console]::Error.WriteLine($_.Exception.Message)
        return $false
    }
}

# Measure-Polls SINCE: how many polls have succeeded since then; $null if Azure did not say.
function Measure-Polls([string]$Since) {
    $polls = az rest --method get --url "/subscriptions/$subscription/resourceGroups/$group/providers/Microsoft.OperationalInsights/workspaces/$workspace/query" `
        --url-parameters api-version=2017-10-01 "query=$($query -creplace 'SINCE', $Since)" `
        --query 'tables[0].rows[0][0]' --output tsv
    if ($LASTEXITCODE -ne 0) { return $null }
    return [int]"0$polls"
}

# Telemetry takes some minutes to become readable.
function Test-Poll {
    return (Measure-Polls $start) -gt 0
}

# Without a key the agent waits for one: in the first run of a pipeline nobody can type it. In a vault that is closed to this
# network nobody sees one: who has never polled may have none. An identity that may not look goes on to the poll.
function Test-KeyMissing {
    $vault = if ($env:KEY_VAULT_NAME) { $env:KEY_VAULT_NAME } else { azd env get-value KEY_VAULT_NAME 2>$null }
    $name = if ($env:MULTIMAIL_API_KEY_SECRET_NAME) { $env:MULTIMAIL_API_KEY_SECRET_NAME } else { 'multimail-api-key' }
    $stored = az keyvault secret list --vault-name $vault --subscription $subscription `
        --query "[?name=='$name'].name" --output tsv --only-show-errors 2>&1 | ForEach-Object { "$_" }
    if ($LASTEXITCODE -eq 0) { return $stored -cnotcontains $name }
    return (Test-Closed ($stored -join "`n")) -and (Measure-Polls '2000-01-01') -eq 0
}

# Wait-For CHECK MINUTES WHAT-IS-CHECKED WHAT-TO-DO
function Wait-For([string]$Check, [int]$Minutes, [string]$What, [string]$Remedy) {
    Write-Host "Waiting until $What (up to $Minutes minutes)"
    for ($tries = $Minutes * 3; -not (& $Check); $tries--) {
        if ($tries -eq 1) { Stop-Script "Timed out before $What. $Remedy" }
        Start-Sleep -Seconds $pause
    }
}

Wait-For Test-Functions 5 'the functions are indexed' `
    'The app does not start. Look at the table FunctionAppLogs in the workspace.'
Wait-For Test-Health 10 'the app reaches its ledger' `
    "New roles take up to ten minutes. After that, look for 'the health check failed' in AppTraces."
if (Test-KeyMissing) {
    Write-Host ('The agent is deployed and has not polled, without a MultiMail key. Store it in a terminal, as an operator with the role ' +
        'Key Vault Secrets Officer (of a private network, on a machine inside): scripts/store_key.ps1')
    exit 0
}
Wait-For Test-Poll 15 'a poll succeeded' `
    'Store the MultiMail key (scripts/store_key.ps1), then look at the errors in the workbook.'
Write-Host 'The agent is running.'
