# Shared by the scripts beside it: `. scripts/lib.sh`. Says what is missing and why, and installs it where it may.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2; }
die() {
  say "$*"
  exit 1
}
have() { command -v "$1" > /dev/null 2>&1; }

# debian WHY PACKAGE…: installs Debian packages, or says which and stops.
debian() {
  local why=$1
  shift
  if [ "$(id -u)" != 0 ] || ! have apt-get; then
    die "missing: $* ($why). Install it first; on Debian, as root: apt-get install $*"
  fi
  say "installing $* ($why)"
  [ -n "${apt_updated:-}" ] || apt-get update -qq
  apt_updated=yes
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# The oldest compiler that works, as Cargo.toml has it.
rust_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1; }

# need_rust [COMPONENT…]: a compiler that is new enough, and clippy or rustfmt where asked for.
need_rust() {
  have cc || debian "Rust links with a C compiler" gcc libc6-dev
  have cargo || die "missing: Rust $(rust_version) or newer. Install it with rustup, then run this again"
  local found
  found=$(cargo --version | cut -d' ' -f2)
  if [ "$(printf '%s\n' "$(rust_version)" "$found" | sort -V | head -1)" != "$(rust_version)" ]; then
    die "cargo is $found, and this needs $(rust_version) or newer: rustup update stable"
  fi
  local component
  for component in "$@"; do
    cargo "$component" --version > /dev/null 2>&1 && continue
    have rustup || die "missing: cargo $component. Install it beside cargo"
    say "installing $component (it checks the code)"
    rustup component add "${component/fmt/rustfmt}" > /dev/null
  done
}

# Python fetches the sample and compares with PyTorch; training and pages do without it.
need_python() {
  have python3 || debian "it unpacks the sample" python3
  python3 -m pip --version > /dev/null 2>&1 || debian "it fetches the sample by name and version" python3-pip
}
