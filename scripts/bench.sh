#!/usr/bin/env bash
# Measures holdfast against native file systems and FUSE peers. Arguments go to scripts/bench/main.mjs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x "$HOME/.cargo/bin/cargo" ] && PATH="$PATH:$HOME/.cargo/bin"
bash scripts/setup.sh bench
exec node scripts/bench/main.mjs "$@"
