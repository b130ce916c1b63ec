#!/usr/bin/env pwsh
#Requires -Version 7.2
# Asks for the address of a target of notifications and puts it into the vault, in place of an older one; for json-NAME its
# key too: scripts/store_target.ps1 teams-support
param([string]$Target)
. "$PSScriptRoot/vault.ps1"

if ($Target -cnotmatch '^(teams|slack|json)-.') {
    Stop-Script "Give the target's name as in the profile (teams-NAME, slack-NAME or json-NAME): scripts/store_target.ps1 teams-support"
}
if ([Console]::IsInputRedirected) {
    Stop-Script "Not a terminal: cannot ask for the address. Run this in a terminal: scripts/store_target.ps1 $Target"
}

$null = Find-Stored "notify-$Target" "scripts/store_target.ps1 $Target" 1 1 # waits for the vault
$address = Read-Key "Address of $Target (https://; not shown as you type)"
if ($address -notmatch '^https://.') {
    Stop-Script 'Not an https address. Copy it again.'
}
$stored = $true
if ($Target -clike 'json-*') {
    $key = Read-Key "Key for the signatures of $Target (not shown as you type)"
    $stored = Set-Stored "notify-$Target-key" $key
}
if (-not ($stored -and (Set-Stored "notify-$Target" $address))) {
    Stop-Script "Storing the address in the vault $vault failed. Run scripts/store_target.ps1 $Target again."
}
Write-Host "Stored as notify-$Target in the vault $vault. To check that it arrives: python -m local notify --test MAILBOX"
