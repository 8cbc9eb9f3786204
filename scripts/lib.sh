# Shared by the scripts beside it: `. scripts/lib.sh`. Says what is missing and why, and installs it where it may.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2; }
die() {
  say "$*"
  exit 1
}
have() { command -v "$1" > /dev/null 2>&1; }

# What the want… functions found missing; install_wanted gets all of it at once, so that whoever has to ask an
# administrator asks once.
wanted=() reasons=()

# want WHY PACKAGE…: these Debian packages are missing.
want() {
  reasons+=("$1: ${*:2}")
  wanted+=("${@:2}")
}

may_install() { [ "$(id -u)" = 0 ] && have apt-get; }

# install_wanted: installs what is wanted, or says what it is and stops.
install_wanted() {
  [ "${#wanted[@]}" -gt 0 ] || return 0
  local reason
  if ! may_install; then
    say "this needs to be installed first:"
    for reason in "${reasons[@]}"; do say "  $reason"; done
    die "on Debian, as root: apt-get install ${wanted[*]}"
  fi
  for reason in "${reasons[@]}"; do say "installing $reason"; done
  update_apt
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" > /dev/null
  hash -r
  wanted=() reasons=()
}

# Once a script: lists of packages go out of date.
update_apt() {
  [ -n "${apt_updated:-}" ] || apt-get update -qq
  apt_updated=yes
}

# The oldest compiler that works, as Cargo.toml has it.
rust_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1; }

# new_enough VERSION: whether it is rust_version or later.
new_enough() { [ "$(printf '%s\n' "$(rust_version)" "$1" | sort -V | head -1)" = "$(rust_version)" ]; }

# cargo_is_new_enough CARGO
cargo_is_new_enough() {
  local found
  have "$1" && found=$("$1" --version 2> /dev/null) && new_enough "$(cut -d' ' -f2 <<< "$found")"
}

# Debian keeps rustc-web, made for its browsers, at a new version where its rustc is old.
debian_rust_is_new_enough() {
  have apt-cache || return 1
  if may_install; then update_apt; fi
  local candidate
  candidate=$(apt-cache policy rustc-web 2> /dev/null | awk '$1 == "Candidate:" { print $2 }')
  [ -n "$candidate" ] && [ "$candidate" != "(none)" ] && new_enough "$candidate"
}

# want_rust [COMPONENT…]: a compiler that is new enough, and clippy or fmt where asked for.
want_rust() {
  have cc || want "a C compiler, which Rust links with and some crates need" gcc libc6-dev
  if ! cargo_is_new_enough cargo; then
    if cargo_is_new_enough /usr/bin/cargo; then
      PATH=/usr/bin:$PATH
    elif have rustup; then
      say "installing Rust's stable release with rustup: $(rust_version) or newer is needed"
      rustup toolchain install stable --profile minimal
      export RUSTUP_TOOLCHAIN=stable
    elif debian_rust_is_new_enough; then
      want "Rust $(rust_version) or newer, which all of this is written in" rustc-web cargo-web
      # An older cargo elsewhere must not come first.
      PATH=/usr/bin:$PATH
    else
      say "missing: Rust $(rust_version) or newer. Install it with rustup (https://rustup.rs)."
      die "On Debian 12 or later, as root: apt-get update && apt-get install rustc-web cargo-web"
    fi
  fi
  local component
  for component in "$@"; do
    cargo "$component" --version > /dev/null 2>&1 && continue
    if have rustup; then
      say "installing $component: it checks the code"
      rustup component add "${component/fmt/rustfmt}" > /dev/null
    else
      case $component in
        fmt) want "rustfmt, which checks the code's format" rustfmt-web ;;
        clippy) want "clippy, which checks the code" rust-web-clippy ;;
      esac
    fi
  done
}

# want_python WHAT: Python and pip, which fetch what it is; training and pages do without.
want_python() {
  have python3 || want "Python, which unpacks $1" python3
  python3 -m pip --version > /dev/null 2>&1 || want "pip, which fetches $1 by name and version" python3-pip
}

# want_program PROGRAM WHY: where package and program have one name.
want_program() { have "$1" || want "$1, which $2" "$1"; }

is_arm() { case $(uname -m) in aarch64 | arm64) ;; *) return 1 ;; esac; }

# want_arm: what makes and runs a program for ARM elsewhere.
want_arm() {
  have aarch64-linux-gnu-gcc || want "a compiler and a C library for ARM" gcc-aarch64-linux-gnu libc6-dev-arm64-cross
  have qemu-aarch64 || want "QEMU, which plays an ARM processor for tests" qemu-user
}

has_sample() { [ -f "$root/sample/.complete" ]; }
