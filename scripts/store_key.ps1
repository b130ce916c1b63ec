#!/usr/bin/env pwsh
#Requires -Version 7.2
# Asks for the MultiMail key and puts it into the vault, unless it is there (-Replace: even if it is). The key of the
# audit trail is made here, once: what was written under it could not be checked with another.
param([switch]$Replace)
. "$PSScriptRoot/vault.ps1"

# This is a hook of azd's: what was created is deployed, and a key can be stored later.
$failed = if (Test-Asking) { 1 } else { 0 }
$auditName = if ($env:AUDIT_KEY_SECRET_NAME) { $env:AUDIT_KEY_SECRET_NAME } else { 'audit-key' }
if (-not (Find-Stored $auditName 'scripts/store_key.ps1' 0 $failed)) {
    $made = [Convert]::ToHexString([System.Security.Cryptography.RandomNumberGenerator]::GetBytes(32))
    if (-not (Set-Stored $auditName $made)) {
        Stop-Script "Storing the key of the audit trail in the vault $vault failed. Run scripts/store_key.ps1 again."
    }
    Write-Host "Stored a new key of the audit trail as $auditName in the vault $vault."
}

$name = if ($env:MULTIMAIL_API_KEY_SECRET_NAME) { $env:MULTIMAIL_API_KEY_SECRET_NAME } else { 'multimail-api-key' }
if ((Find-Stored $name 'scripts/store_key.ps1' 0 $failed) -and -not $Replace) {
    Write-Host "The MultiMail key is in the vault $vault. To replace it: scripts/store_key.ps1 -Replace"
    exit 0
}
if (-not (Test-Asking)) {
    Write-Host 'Not a terminal: cannot ask for the MultiMail key. Run this in a terminal: scripts/store_key.ps1'
    exit 0
}

$key = Read-Key 'MultiMail key (scopes read and send; not shown as you type)'
if (-not (Set-Stored $name $key)) {
    Stop-Script "Storing the MultiMail key in the vault $vault failed. Run scripts/store_key.ps1 again."
}
Write-Host "Stored as $name in the vault $vault."
