#!/bin/sh
# Install the npm library standardwebhooks, an outside verifier of our webhooks (tests/notify/test_npm.py), in .venv/npm-verifiers.
#
# It needs node and npm. Without them: exit status 2 and a line that says so.
set -eu
cd "$(dirname "$0")/.."
from=tests/notify/npm
into=.venv/npm-verifiers
say() { printf 'npm verifiers: %s\n' "$*" >&2; }

[ -d .venv ] || { say "there is no .venv; run bin/setup first"; exit 1; }
want=$(cat "$from/package.json" "$from/package-lock.json" | cksum)
if [ "$(cat "$into/stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi
command -v npm >/dev/null && command -v node >/dev/null || { say "not installed: there is no node with npm here"; exit 2; }

say "installing with node $(node --version)"
rm -rf "$into"
mkdir -p "$into"
cp "$from/package.json" "$from/package-lock.json" "$into"
(cd "$into" && npm ci --ignore-scripts --no-audit --no-fund --silent)
printf '%s\n' "$want" >"$into/stamp"
