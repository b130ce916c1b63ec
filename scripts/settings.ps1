#Requires -Version 7.2
# Dot-sourced by the other scripts.
$ErrorActionPreference = 'Stop'

# Stop-Script MESSAGE: say what is wrong, and end with a failure.
function Stop-Script([string]$Message) {
    [Console]::Error.WriteLine($Message)
    exit 1
}

if (-not (Get-Command az -ErrorAction Ignore)) {
    Stop-Script 'The Azure CLI is missing. Install it: https://aka.ms/azcli'
}

# Get-Setting NAME: from the environment, where azd puts it for its hooks, or from azd's chosen environment.
function Get-Setting([string]$Name) {
    $value = [Environment]::GetEnvironmentVariable($Name)
    if ($value) { return $value }
    $isFound = $false
    if (Get-Command azd -ErrorAction Ignore) {
        $value = azd env get-value $Name
        $isFound = $LASTEXITCODE -eq 0
    }
    if (-not $isFound) { Stop-Script "$Name is not set. Set it, or run this where azd knows the environment." }
    return $value
}

# Test-Closed ERROR: whether a vault said that it does not answer to this network.
function Test-Closed([string]$Answer) {
    return $Answer -cmatch 'ForbiddenByConnection|ForbiddenByFirewall|Public network access is disabled'
}
