#Requires -Version 7.2
# Dot-sourced by the other scripts.
$ErrorActionPreference = 'Stop'

# Get-Setting NAME: from the environment, where azd puts it for its hooks, or from azd's chosen environment.
function Get-Setting([string]$Name) {
    $value = [Environment]::GetEnvironmentVariable($Name)
    if (-not $value) {
        $value = azd env get-value $Name
        if ($LASTEXITCODE -ne 0) {
            Stop-Script "$Name is not set. Set it, or run this where azd knows the environment."
        }
    }
    return $value
}

# Stop-Script MESSAGE: say what is wrong, and end with a failure.
function Stop-Script([string]$Message) {
    [Console]::Error.WriteLine($Message)
    exit 1
}
