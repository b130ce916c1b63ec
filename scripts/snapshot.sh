#!/bin/sh
# Predict what each parameter file in tests/infra would deploy, and compare with the stored prediction
# (validate, the default) or store the new one (overwrite). Needs no network and no subscription.
set -eu
mode=${1:-validate}
cd "$(dirname "$0")/.."
bicep=${BICEP:-bicep}
for parameters in tests/infra/*.bicepparam; do
    "$bicep" snapshot "$parameters" --mode "$mode" \
        --tenant-id 00000000-0000-0000-0000-0000000000ff \
        --subscription-id 00000000-0000-0000-0000-000000000001 \
        --location swedencentral --deployment-name agent
done
[ "$mode" = overwrite ] || exit 0

# The compiler writes the outputs in another order each time: sort them, so that equal means equal.
"${PYTHON:-python3}" - tests/infra/*.snapshot.json <<'PY'
import json, sys
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        snapshot = json.load(file)
    snapshot["outputs"] = dict(sorted(snapshot["outputs"].items()))
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(snapshot, indent=2, ensure_ascii=False) + "\n")
PY
