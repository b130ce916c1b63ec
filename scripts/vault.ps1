#Requires -Version 7.2
# Dot-sourced by the scripts that put a secret into the vault. A secret goes from the keyboard through pipes: never
# into a file, an argument list, an environment or a shell's history.
Set-PSDebug -Off
. "$PSScriptRoot/settings.ps1"

$vault = Get-Setting KEY_VAULT_NAME
$subscription = Get-Setting AZURE_SUBSCRIPTION_ID
$pause = if ($env:RETRY_SECONDS) { $env:RETRY_SECONDS } else { 15 }

# Find-Stored NAME: return NAME if the vault holds such a secret. A new role takes minutes to arrive there.
function Find-Stored([string]$Name) {
    for ($try = 1; $true; $try++) {
        $stored = az keyvault secret list --vault-name $vault --subscription $subscription `
            --query "[?name=='$Name'].name" --output tsv
        if ($LASTEXITCODE -eq 0) { return $stored }
        if ($try -eq 40) { # ten minutes, as long as a new role may take
            Stop-Script ("Reading the vault $vault failed. Sign in with az login as the operator who has the role " +
                "Key Vault Secrets Officer there, from a network that the vault allows; then run azd up again, or this " +
                "script by itself.")
        }
        [Console]::Error.WriteLine(
            "The vault $vault does not answer yet, which is normal right after its creation. Waiting.")
        Start-Sleep -Seconds $pause
    }
}

# Read-Key PROMPT: return a key, or an address that is one, typed unseen.
function Read-Key([string]$Prompt) {
    $typed = Read-Host -Prompt $Prompt -AsSecureString
    $key = [System.Net.NetworkCredential]::new('', $typed).Password
    if ($key -cnotmatch '^[!-~]+$') {
        Stop-Script 'Not a valid key or address: it is empty, or contains white space or characters outside ASCII.'
    }
    return $key
}

# Set-Stored NAME VALUE: return whether the vault took it. The Azure CLI reads it from standard input.
function Set-Stored([string]$Name, [string]$Value) {
    $Value | az keyvault secret set --vault-name $vault --subscription $subscription --name $Name `
        --value '@-' --output none
    return $LASTEXITCODE -eq 0
}
