# What ./run and ./test share. Sourced by bash with the project's directory as working directory; defines functions only.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
die() { say "./${0##*/}: $*"; exit 1; }

# Administrators' programs (nft, runuser) are not on every user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

may_be_root() { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }

# Runs a command as root: directly, or by sudo. Callers make sure of may_be_root where they can say better what root is needed for.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "root is needed for: $* (run ./${0##*/} as root, or install sudo)"; fi
}

# Who called: behind sudo it is that user whose clone this is, and whose toolchain builds it.
caller() {
    if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ] && [ "${SUDO_UID:-0}" != 0 ] && [ "$(stat -c %u .)" = "$SUDO_UID" ]; then
        printf '%s\n' "$SUDO_USER"
    else id -un; fi
}

caller_home() {
    if [ "$(caller)" = "$(id -un)" ]; then printf '%s\n' "${HOME:-/}"; else getent passwd "$(caller)" | cut -d: -f6; fi
}

# Debian's packages that are missing, by looking for what is used of each: another distribution's are as good.
missing_packages() {
    local file
    command -v cc >/dev/null && file=$(cc -print-file-name=libc.a) && [ -e "$file" ] || echo build-essential
    command -v cc >/dev/null && file=$(cc -print-file-name=libseccomp.a) && [ -e "$file" ] || echo libseccomp-dev
    command -v nft >/dev/null || echo nftables
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || echo ca-certificates
}

# apt-get for the packages named, without starting any service that they bring; a policy-rc.d that was there comes back.
apt_install() {
    command -v apt-get >/dev/null || die "missing: $*, and there is no apt-get here: install them by your distribution's means, then call again"
    may_be_root || die "missing: $*, and root is needed to install them: ask an administrator for apt-get install $*, or run ./${0##*/} as root"
    say "installing $*"
    as_root apt-get update -qq </dev/null >&2 || die "apt-get update failed: the network or /etc/apt/sources.list may be at fault; or install by hand: $*"
    # Only one policy-rc.d is asked: the administrator's is kept aside, under a lock for another clone that does the same. One that
    # an earlier call could not take away again is ours by its mark.
    as_root flock /var/lock sh -c '
        policy=/usr/sbin/policy-rc.d mark="# while rcontainerd installs packages"
        if grep -qsF "$mark" "$policy"; then rm -f "$policy"; elif [ -e "$policy" ]; then mv "$policy" "$policy.kept"; fi
        trap "rm -f $policy; [ ! -e $policy.kept ] || mv $policy.kept $policy" EXIT
        trap "exit 130" INT TERM
        printf "#!/bin/sh\n%s\nexit 101\n" "$mark" >"$policy" && chmod 0755 "$policy"
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"' sh "$@" </dev/null >&2 ||
        die "apt-get could not install $*"
}

cargo_version() { cargo --version 2>/dev/null | cut -d' ' -f2 || true; }

# Is version $1 at least $2?
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

# Puts a cargo of the workspace's rust-version on PATH: the one that is there, or one that rustup fetches. Debian's own is too old.
need_cargo() {
    local wanted have home
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    home=$(caller_home)
    [ ! -x "$home/.cargo/bin/cargo" ] || PATH=$home/.cargo/bin:$PATH
    # Behind sudo, HOME is root's: the caller's toolchains serve all the same.
    [ "$home" = "${HOME:-/}" ] || [ ! -d "$home/.rustup" ] || export RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
    have=$(cargo_version)
    if [ -n "$have" ] && at_least "$have" "$wanted"; then return 0; fi
    have=${have:+version $have}
    command -v rustup >/dev/null || die "cargo is ${have:-missing}, the workspace needs $wanted or newer; this fetches it: $(rustup_command "$wanted")"
    say "cargo is ${have:-missing}, the workspace needs $wanted: fetching that toolchain by rustup"
    as_caller rustup toolchain install --profile minimal --no-self-update "$wanted" </dev/null >&2 ||
        die "rustup could not install Rust $wanted: try again when the network is there (rustup toolchain install $wanted)"
    # The toolchain itself comes before whatever cargo was found first.
    PATH=$(dirname "$(as_caller rustup which --toolchain "$wanted" cargo)"):$PATH
    have=$(cargo_version)
    at_least "${have:-0}" "$wanted" || die "rustup installed Rust $wanted, but cargo is still ${have:-missing}: put rustup's toolchain first on PATH"
}

# The exact command that brings the toolchain here.
rustup_command() {
    if apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then echo "$([ "$(id -u)" = 0 ] || echo sudo\ )apt-get install rustup && rustup toolchain install $1"
    else echo "curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain $1 (curl: apt-get install curl)"; fi
}

# Runs as whoever called, also behind sudo: what is built must belong to them.
as_caller() {
    local user
    user=$(caller)
    if [ "$user" = "$(id -un)" ]; then "$@"
    else runuser -u "$user" -- env HOME="$(caller_home)" PATH="$PATH" "$@"; fi
}
