#!/bin/sh
# Copy what scripts/package.txt lists, and nothing else, into the empty folder .package, which is deployed.
set -euf
cd "$(dirname "$0")/.."
rm -rf .package

copy() {
    mkdir -p ".package/$(dirname "$1")"
    cp "$1" ".package/$1"
}

grep -v '^#' scripts/package.txt | while read -r name patterns; do
    if [ ! -e "$name" ]; then
        echo "$name is missing here: it is in scripts/package.txt. Check out the whole repository." >&2
        exit 1
    fi
    [ -n "$patterns" ] || copy "$name"
    for pattern in $patterns; do
        find -L "$name" -type f -name "$pattern" ! -path '*/.*' | while IFS= read -r file; do copy "$file"; done
    done
done
