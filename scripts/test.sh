#!/usr/bin/env bash
# Everything that CI checks: set-up, build, format, lint, types, Rust, tests.
# The last line is `N passed, N failed`; the exit code is not 0 when anything failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x "$HOME/.cargo/bin/cargo" ] && PATH="$PATH:$HOME/.cargo/bin"
if ! bash scripts/setup.sh test; then
  echo '0 passed, 1 failed'
  exit 1
fi
exec node scripts/check.mjs "$@"
