#!/bin/sh
# What `make demo` runs: one guest, two hosts. PARAVIRT is the command, BUILD a directory to write to.
set -eu

PARAVIRT=${PARAVIRT:-paravirt}
BUILD=${BUILD:-build}
HERE=$(dirname "$0")

# A guest that ends well has status 1, as in QEMU: isa-debug-exit makes (0 << 1) | 1 of its 0.
run() {
    echo
    echo "\$ paravirt run hello.elf $*"
    status=0
    "$PARAVIRT" run "$BUILD/hello.elf" "$@" || status=$?
    [ "$status" -eq 1 ] || { echo "demo: the guest ended with status $status" >&2; exit 1; }
}

mkdir -p "$BUILD"
echo '$ paravirt build examples/hello.c -o hello.elf'
"$PARAVIRT" build "$HERE/hello.c" -o "$BUILD/hello.elf"
run --host intel --trace fixup
run --host amd --trace fixup
run --host amd --policy emulate --trace fixup --stats
