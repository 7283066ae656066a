#!/usr/bin/env bash
# The environment of a node: the packages of requirements.lock, each checked against its hash, and this checkout.
#   bash cluster/install.sh ~/venv
# Does nothing where that environment was made from the same lock.
set -euo pipefail

venv="$1"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
lock="$here/requirements.lock"
made="$venv/made-from.sha256"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

if [ -e "$made" ] && sha256sum --status --check "$made"; then
    exit 0
fi
python3.12 -m venv "$venv" || {
    sudo apt-get update -qq
    sudo apt-get install -y -qq python3.12-venv
    python3.12 -m venv "$venv"
}
"$venv/bin/pip" install --quiet --require-hashes --only-binary :all: -r "$lock"
# What builds the package is in the lock too: nothing else is fetched.
"$venv/bin/pip" install --quiet --no-deps --no-build-isolation -e "$here/.."
sha256sum "$lock" > "$made"
