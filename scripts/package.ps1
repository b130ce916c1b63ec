#!/usr/bin/env pwsh
#Requires -Version 7.0
# Copy what scripts/package.txt lists, and nothing else, into the empty folder .package, which is deployed.
$ErrorActionPreference = 'Stop'
Set-Location (Join-Path $PSScriptRoot '..')
if (Test-Path .package) { Remove-Item .package -Recurse -Force }

function Copy-Listed([string] $File) {
    $target = Join-Path .package $File
    New-Item (Split-Path $target) -ItemType Directory -Force | Out-Null
    Copy-Item $File $target
}

foreach ($line in Get-Content scripts/package.txt | Where-Object { $_ -notmatch '^#' }) {
    $name, $patterns = -split $line
    if (-not $patterns) { Copy-Listed $name }
    foreach ($pattern in $patterns) {
        Get-ChildItem $name -Recurse -File -FollowSymlink | Where-Object { $_.Name -clike $pattern } |
            ForEach-Object { Resolve-Path $_.FullName -Relative } |
            Where-Object { $_ -notmatch '[\\/]\.' } |
            ForEach-Object { Copy-Listed $_ }
    }
}
