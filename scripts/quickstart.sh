#!/usr/bin/env bash
# The main job, live: see scripts/quickstart.mjs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x "$HOME/.cargo/bin/cargo" ] && PATH="$PATH:$HOME/.cargo/bin"
bash scripts/setup.sh
exec node scripts/quickstart.mjs "$@"
