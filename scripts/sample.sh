#!/bin/sh
# Make the sample of a proof anew: keys/root.json, keys/*.pub and docs/examples/candiru.json, from one run of the demo.
# The private keys of that run are deleted with its folder: nobody can sign under the sample's root, ever again.
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' HUP INT TERM
bin/demo --once --records 40 --dir "$scratch/demo"
mkdir -p docs/examples
cp "$scratch/demo/proofs/candiru.json" docs/examples/candiru.json
cp "$scratch/demo/root.json" keys/root.json
for state in us ee nl jp; do
    cp "$scratch/demo/$state/officer/contact-point.key.pub" "keys/sample-$state-contact-point.pub"
done
.venv/bin/verbale verify docs/examples/candiru.json --roster-root keys/root.json
