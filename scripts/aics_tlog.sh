#!/bin/sh
# Install aics-tlog and aics-witness, an outside verifier and an outside witness of our logs (tests/interop/test_aics_tlog.py,
# tests/federation/test_foreign_witness.py), in .venv/aics-tlog.
#
# It needs Python 3.12 or newer, which our own tests do not, hence an environment of its own. PYTHON names an interpreter;
# otherwise those on the PATH are tried, and pyenv's. Without one: exit status 2 and a line that says so.
set -eu
cd "$(dirname "$0")/.."
lock=tests/interop/aics-tlog.lock
venv=.venv/aics-tlog
say() { printf 'aics-tlog: %s\n' "$*" >&2; }

[ -d .venv ] || { say "there is no .venv; run bin/setup first"; exit 1; }
want=$(pwd -P; cksum <"$lock")
if [ -x "$venv/bin/aics-tlog" ] && [ "$(cat "$venv/stamp" 2>/dev/null)" = "$want" ]; then exit 0; fi

python=
for candidate in ${PYTHON-} python3 python3.14 python3.13 python3.12 $(ls -d "$(pyenv root 2>/dev/null)"/versions/*/bin/python3 2>/dev/null); do
    if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || { say "not installed: there is no Python 3.12 or newer here (PYTHON=/path/to/python3.12 $0)"; exit 2; }

say "installing with $("$python" -V)"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --require-hashes --only-binary :all: -r "$lock"
printf '%s\n' "$want" >"$venv/stamp"
