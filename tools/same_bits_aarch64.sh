#!/usr/bin/env bash
# The same bits on another architecture: tests/refnet/matrix.py on aarch64, emulated by qemu.
#
#     tools/same_bits_aarch64.sh FOLDER
#
# Prints rows of docs/same-bits.md, one for each vector width among them; the first also compares every result with the
# NumPy definitions, bit by bit, on that architecture. It installs nothing and needs no root: what is missing is unpacked
# into FOLDER (half a GB; some seconds), and found there the next time:
#
#     qemu/   qemu-user-static of this machine's architecture, unless qemu is on the PATH; it computes floating-point
#             instructions, fma among them, with integers, as IEEE-754 defines them
#     root/   Debian's Python for arm64, and the libraries that it needs
#     site/   the wheels for aarch64 of refnet's dependencies, by requirements-dev.txt
#
# It takes minutes, most of them for Numba under emulation. Needs apt-get and dpkg with Debian's package sources, and python3
# (3.11 or later) with pip. The kernels compiled are those of FOLDER/cache, empty at first.
set -euo pipefail
folder=$(realpath -m "${1:?usage: $0 FOLDER}")
cd "$(dirname "$0")/.."
mkdir -p "$folder"/apt/{state/lists,cache/archives}/partial
touch "$folder/apt/state/status"

# apt-get with lists and state of its own, so that it resolves all that arm64 needs.
apt() {
    apt-get -qq -o Dir::State="$folder/apt/state" -o Dir::State::status="$folder/apt/state/status" \
        -o Dir::Cache="$folder/apt/cache" -o APT::Sandbox::User="$(id -un)" -o APT::Architecture=arm64 \
        -o APT::Architectures::=arm64 -o APT::Architectures::="$(dpkg --print-architecture)" "$@"
}

qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || echo "$folder/qemu/usr/bin/qemu-aarch64-static")
root=$folder/root
if [ ! -e "$root" ] || [ ! -x "$qemu" ]; then
    apt update
fi
if [ ! -x "$qemu" ]; then
    (cd "$folder/apt" && apt download "qemu-user-static:$(dpkg --print-architecture)")
    dpkg -x "$folder"/apt/qemu-user-static_*.deb "$folder/qemu"
fi
if [ ! -e "$root" ]; then
    apt install -y --download-only --no-install-recommends python3 libstdc++6 > /dev/null
    for package in "$folder"/apt/cache/archives/*.deb; do
        dpkg -x "$package" "$root.new"
    done
    mv "$root.new" "$root"
fi
python=$(realpath "$root/usr/bin/python3")
if [ ! -e "$folder/site" ]; then
    sed -n 's/^\([A-Za-z0-9_.-]*==[^ ;\\]*\).*/\1/p' requirements-dev.txt > "$folder/constraints.txt"
    python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > "$folder/requirements.txt"
    python3 -m pip install --quiet --no-compile --target "$folder/site.new" --only-binary=:all: \
        --implementation cp --python-version "${python##*python}" \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --constraint "$folder/constraints.txt" --requirement "$folder/requirements.txt"
    mv "$folder/site.new" "$folder/site"
fi

matrix() {
    PYTHONPATH=$PWD:$PWD/kernels:$folder/site REFNET_CACHE=$folder/cache \
        "$qemu" -L "$root" "$python" -m tests.refnet.matrix "$@"
}

matrix --definitions --full --starts fork
REFNET_LANES=8 matrix
REFNET_LANES=16 matrix
NUMBA_CPU_NAME=neoverse-n1 NUMBA_CPU_FEATURES="" matrix
