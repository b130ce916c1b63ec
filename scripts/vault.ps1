#Requires -Version 7.2
# Dot-sourced by the scripts that put a secret into the vault. A secret goes from the keyboard through pipes: never
# into a file, an argument list, an environment or a shell's history.
Set-PSDebug -Off
. "$PSScriptRoot/settings.ps1"

$vault = Get-Setting KEY_VAULT_NAME
$subscription = Get-Setting AZURE_SUBSCRIPTION_ID
$pause = if ($env:RETRY_SECONDS) { $env:RETRY_SECONDS } else { 15 }

# Test-Asking: whether somebody is there to type.
function Test-Asking {
    return -not [Console]::IsInputRedirected -and -not $env:CI
}

# Find-Stored NAME COMMAND CLOSED-STATUS FAILED-STATUS: return NAME if the vault holds such a secret. A new role, and a new
# vault's name, take minutes to arrive: where somebody waits they are waited for. If the vault is closed to this network, or
# cannot be read, the script ends with that status.
function Find-Stored([string]$Name, [string]$Command, [int]$Closed, [int]$Failed) {
    $tries = if (Test-Asking) { 40 } else { 1 } # ten minutes, as long as a new role may take
    while ($true) {
        $answer = az keyvault secret list --vault-name $vault --subscription $subscription `
            --query "[?name=='$Name'].name" --output tsv --only-show-errors 2>&1 | ForEach-Object { "$_" }
        if ($LASTEXITCODE -eq 0) { return $answer | Where-Object { $_ -ceq $Name } }
        $problem = $answer -join "`n"
        [Console]::Error.WriteLine($problem)
        if (Test-Closed $problem) {
            [Console]::Error.WriteLine("The vault $vault answers only inside its network. On a machine there: " +
                "`$env:AZURE_SUBSCRIPTION_ID = '$subscription'; `$env:KEY_VAULT_NAME = '$vault', az login, $Command")
            exit $Closed
        }
        if ($problem -cnotmatch 'ForbiddenByRbac|Failed to resolve|Name or service not known|getaddrinfo|nodename') {
            $tries = 1 # another try would get the same answer
        }
        $tries--
        if ($tries -eq 0) {
            [Console]::Error.WriteLine("Reading the vault $vault failed, and the Azure CLI says above why. Run az login as " +
                "the operator who has the role Key Vault Secrets Officer there; then run azd up again, or in a terminal " +
                $Command)
            exit $Failed
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
