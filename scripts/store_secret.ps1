#!/usr/bin/env pwsh
#Requires -Version 7.2
# Asks for a secret that a profile names and puts it into the vault, in place of an older one: the key of a look-up, or the
# address of a target of notifications, for json-NAME its key too: scripts/store_secret.ps1 teams-support
param([string]$Name)
. "$PSScriptRoot/vault.ps1"

if ($Name -cmatch '^lookup-.') {
    $secret, $what, $check = $Name, 'Key', 'python -m local lookup MAILBOX ADDRESS'
} elseif ($Name -cmatch '^(teams|slack|json)-.') {
    $secret, $what, $check = "notify-$Name", 'Address (https://)', 'python -m local notify --test MAILBOX'
} else {
    Stop-Script ("Give the name as in the profile, of a target (teams-NAME, slack-NAME or json-NAME) or of a look-up's " +
        'secret (lookup-NAME): scripts/store_secret.ps1 teams-support')
}
if ([Console]::IsInputRedirected) {
    Stop-Script "Not a terminal: cannot ask for the secret. Run this in a terminal: scripts/store_secret.ps1 $Name"
}

$null = Find-Stored $secret "scripts/store_secret.ps1 $Name" 1 1 # waits for the vault
$value = Read-Key "$what of $Name (not shown as you type)"
if ($secret -cne $Name -and $value -notmatch '^https://.') {
    Stop-Script 'Not an https address. Copy it again.'
}
$stored = $true
if ($Name -clike 'json-*') {
    $key = Read-Key "Key for the signatures of $Name (not shown as you type)"
    $stored = Set-Stored "$secret-key" $key
}
if (-not ($stored -and (Set-Stored $secret $value))) {
    Stop-Script "Storing the secret in the vault $vault failed. Run scripts/store_secret.ps1 $Name again."
}
Write-Host "Stored as $secret in the vault $vault. To check that it works: $check"
