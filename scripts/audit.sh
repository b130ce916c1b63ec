#!/usr/bin/env bash
# Looks for secrets in the tree, then for known vulnerabilities in what is installed: PYTHON is a Python with both tools.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(dirname "${PYTHON:-.venv/bin/python}")

# What the tests make up, names of secrets, tables of letters and words, a column whose name says secret, and the key that every Azurite has. Left out are the locks and the
# recorded answers, which are full of hashes, and hostile mail and drafts, whose keys are made up.
made_up='^(benchmark|dynamic, Sku.*|9f86d081884c7d659a2feaa0c55ad015a3bf4f1b|password_request|key|aeopcyxijsdh[A-Za-z]+|password\* passwor\* [^"]*|iVBORw0KGgo[A-Za-z0-9+/=]+|multimail-(api-key|webhook-secret)|audit-key|lookup-[a-z]*|password|no secret|real|whsec_(of_the_world|1|abcdefghij0123456789)|sk-abcdefghij0123456789|ba9876543210|0123456789ab|The code is .*|simulated|unused|right|wrong|abc def|mm_(test|live)_[a-z0-9]{1,5}|model-key-abc|sk-hidden.*|Eby8vdM02.*)$'
git ls-files -z -- . ':!tests/hostile/*.toml' ':!evals/knowledge/recorded/*' ':!tests/drafts/*' ':!*requirements.txt' | xargs -0 "$bin/detect-secrets-hook" --exclude-secrets "$made_up"
echo "no secrets in $(git ls-files | wc -l) files"

report=$(mktemp)
errors=$(mktemp)
trap 'rm -f "$report" "$errors"' EXIT
# Its status is 1 for a vulnerability and for a crash alike: the report tells which.
"$bin/pip-audit" --format json --progress-spinner off >"$report" 2>"$errors" || true
if ! "$bin/python" -m json.tool "$report" >/dev/null 2>&1; then
    cat "$errors" >&2
    echo "pip-audit made no report, so nothing was audited: see its error above and run it again" >&2
    exit 1
fi
"$bin/python" - "$report" <<'PY'
"""Fail on a known vulnerability; say plainly when the package index knows of none because it has no such data."""
import json, pathlib, sys
packages = json.loads(pathlib.Path(sys.argv[1]).read_text())["dependencies"]
audited = [package for package in packages if "skip_reason" not in package]
found = [f"{p['name']} {p['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'no version yet'}"
         for p in audited for v in p["vulns"]]
if audited:
    print(f"{len(audited)} packages audited, {len(found)} known vulnerabilities")
else:
    print("SKIPPED: this package index has no data on vulnerabilities")
sys.exit("\n".join(found) or None)
PY
