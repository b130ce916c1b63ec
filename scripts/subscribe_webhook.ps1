#!/usr/bin/env pwsh
#Requires -Version 7.2
# Subscribes the agent to MultiMail's events and puts their signing secret into the vault, unless there is one
# (-Replace: even if there is). It asks for a key with the scope admin, which is used once and kept nowhere.
param([switch]$Replace)
. "$PSScriptRoot/vault.ps1"

$hostName = Get-Setting FUNCTION_APP_HOST
$api = if ($env:MULTIMAIL_API_URL) { $env:MULTIMAIL_API_URL } else { 'https://api.multimail.dev' }
$name = if ($env:MULTIMAIL_WEBHOOK_SECRET_NAME) { $env:MULTIMAIL_WEBHOOK_SECRET_NAME } else { 'multimail-webhook-secret' }
$events = "message.received", "message.delivered", "message.bounced", "oversight.approved", "oversight.rejected"
$command = 'scripts/subscribe_webhook.ps1'

if ((Find-Stored $name $command 1 1) -and -not $Replace) {
    Write-Host "The agent is subscribed: the vault $vault has $name. To do it again: $command -Replace"
    exit 0
}
if (-not (Test-Asking)) {
    Stop-Script "Not a terminal: cannot ask for a MultiMail key. Run this in a terminal: $command"
}

$key = Read-Key 'MultiMail key (scope admin, used once; not shown as you type)'
$body = @{ url = "https://$hostName/api/webhook"; events = $events } | ConvertTo-Json
# The answer is the only place that ever shows the signing secret, so it is not printed.
try {
    $answer = Invoke-RestMethod -Method Post -Uri "$api/v1/webhooks" -Headers @{ Authorization = "Bearer $key" } `
        -ContentType 'application/json' -Body $body -TimeoutSec 60
} catch {
    Stop-Script "Subscribing failed: $($_.Exception.Message)"
}
if (-not $answer.signing_secret) {
    Stop-Script "MultiMail's answer has no signing secret. Remove the new subscription in MultiMail's dashboard and try again."
}
if (-not (Set-Stored $name $answer.signing_secret)) {
    Stop-Script ("Subscribed, but storing the signing secret failed. Remove the subscription in MultiMail's dashboard, " +
        "then run $command again.")
}
Write-Host "Subscribed. The signing secret is $name in the vault $vault; the agent finds it within a minute."
