#!/usr/bin/env bash
# Sets up everything that holdfast needs on a Debian 12 machine, and builds what is stale.
# Idempotent; takes less than a second when there is nothing to do.
#
#   bash scripts/setup.sh            to run holdfast
#   bash scripts/setup.sh test       and its tests
#   bash scripts/setup.sh bench      and its benchmarks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
purpose="${1:-run}"

NODE_MIN=20.19.0
RUST_MIN=1.85.0

say() { printf '• %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  printf '  %s\n' "$@" >&2
  exit 4
}

# at_least A B: version A is B or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# --- system packages: a command (or a file) that tells whether each is there ---------------------
needed=(
  fusermount3:fuse3 cc:build-essential pkg-config:pkg-config git:git umount:mount prlimit:util-linux
)
# What fuse-native loads, for the browse tree; it has a binary for this processor only.
[ "$(uname -m)" != x86_64 ] || needed+=(/usr/lib/x86_64-linux-gnu/libfuse.so.2:libfuse2)
if [ "$purpose" != run ]; then
  needed+=(
    mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs mkfs.btrfs:btrfs-progs ip:iproute2 nsenter:util-linux setfattr:attr setfacl:acl sqlite3:sqlite3
    /usr/lib/postgresql/15/bin/postgres:postgresql-15 fio:fio stress-ng:stress-ng rsync:rsync
    python3:python3 restic:restic borg:borgbackup borgmatic:borgmatic systemd-analyze:systemd sshd:openssh-server ssh:openssh-client
  )
fi
[ "$purpose" != bench ] || needed+=(
  /usr/include/fuse3/fuse.h:libfuse3-dev mergerfs:mergerfs bindfs:bindfs g++:g++
)
# The quickstart's workload.
[ "$purpose" != run ] || needed+=(sqlite3:sqlite3 setfattr:attr)

missing=()
for entry in "${needed[@]}"; do
  probe="${entry%%:*}" package="${entry#*:}"
  case "$probe" in
    /*) [ -e "$probe" ] || missing+=("$package") ;;
    *) command -v "$probe" >/dev/null || [ -x "/usr/sbin/$probe" ] || missing+=("$package") ;;
  esac
done
if [ "${#missing[@]}" -gt 0 ]; then
  command -v apt-get >/dev/null || die "missing: ${missing[*]}" \
    "This script installs packages on Debian and Ubuntu only: install these by hand."
  [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]}" \
    "Install them: sudo apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2
  # PostgreSQL must not start a cluster of its own: the tests make theirs.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  fi
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

# --- toolchains --------------------------------------------------------------------------------
[ -x "$HOME/.cargo/bin/cargo" ] && PATH="$PATH:$HOME/.cargo/bin"
command -v node >/dev/null && command -v npm >/dev/null || die "Node.js is missing" \
  "Install version $NODE_MIN or newer: https://nodejs.org/en/download"
node_version="$(node -p 'process.versions.node')"
at_least "$node_version" "$NODE_MIN" || die "Node.js $node_version is too old" \
  "Install version $NODE_MIN or newer: https://nodejs.org/en/download"
command -v cargo >/dev/null || die "the Rust toolchain is missing" \
  "Install version $RUST_MIN or newer: https://rustup.rs"
rust_version="$(rustc --version | cut -d ' ' -f 2)"
at_least "$rust_version" "$RUST_MIN" || die "Rust $rust_version is too old" \
  "Update to $RUST_MIN or newer: rustup update stable"

# --- npm packages: as package-lock.json says -----------------------------------------------------
stamp=node_modules/.holdfast-lock
want="$(sha256sum package.json package-lock.json | sha256sum)"
# Not `npm ci`: it insists that the lock file names the builds of optional packages for every other
# platform, which a registry that lacks one of them makes impossible. This takes the locked versions too.
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  say "installing npm packages"
  npm install --no-save --no-audit --no-fund --loglevel=error >&2
fi
[ "$(cat "$stamp" 2>/dev/null)" = "$want" ] || printf '%s\n' "$want" >"$stamp"

# --- what is built -------------------------------------------------------------------------------
# stale TARGET DIR...: TARGET is missing or older than a source.
stale() {
  local target="$1"
  shift
  [ ! -e "$target" ] || [ -n "$(find "$@" -newer "$target" \
    \( -name '*.rs' -o -name 'Cargo.*' -o -name '*.ts' -o -name 'tsconfig.json' \) \
    -not -path '*/target/*' -print -quit)" ]
}

if [ -f native-bindings/Cargo.toml ] && stale native-bindings/holdfast.node native-bindings; then
  say "building the data plane"
  node scripts/build-native.mjs
fi

# A source that is gone must not leave its output behind: a deleted test would still run.
sources="$(find src test -name '*.ts' | sort | sha256sum)"
if [ "$(cat dist/.sources 2>/dev/null)" != "$sources" ]; then rm -rf dist; fi
if stale dist/.built src test tsconfig.json || [ scripts/bundle.mjs -nt dist/.built ]; then
  say "compiling TypeScript"
  node_modules/.bin/tsc -p tsconfig.json
  node scripts/bundle.mjs
  chmod +x dist/program/cli/main.js
  printf '%s\n' "$sources" >dist/.sources
  touch dist/.built
fi

if [ -f test/tools/Cargo.toml ] && stale test/tools/target/release/treecmp test/tools; then
  say "building the test tools"
  (cd test/tools && cargo build --release --quiet)
  touch test/tools/target/release/treecmp
fi
