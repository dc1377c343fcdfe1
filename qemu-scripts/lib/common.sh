# shellcheck shell=bash
# What ./qemu-scripts/demo and ./qemu-scripts/test have in common: packages, the virtual environment, the demo
# hypervisor, QEMU. To be sourced, with `set -euo pipefail` in force. Written for Debian 12 and 13 and Ubuntu 24.04.
#
# Everything is kept in $GDBHYP_CACHE (default: ~/.cache/gdbhyp) and found there again: once set up, nothing here
# needs the network, root, or more than a second.

gdbhyp_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034  # for those who source this
gdbhyp_cache=${GDBHYP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gdbhyp}

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$*"
    exit 1
}

# ---- packages ------------------------------------------------------------------------------------

# Sets as_root to the words that a command needs in front of it to run as root; what it is for is $1.
need_root_or_sudo() {
    as_root=()
    if ((EUID == 0)); then
        return
    fi
    command -v sudo >/dev/null || die "$1 needs root, and there is no sudo here: run this as root once"
    if ! sudo -n true 2>/dev/null; then
        [[ -t 0 ]] || die "$1 needs root, and sudo asks for a password: run this in a terminal once, or as root"
        say "$1 needs root: sudo may ask for your password"
        sudo -v || die "$1 needs root, and sudo refused"
    fi
    as_root=(sudo)
}

package_installed() {
    [[ $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]
}

# Installs the packages that are missing. PACKAGE=PROGRAM is there already when PROGRAM can be run, whoever installed
# it. Ends the script, naming the package, when one cannot be had.
apt_install() {
    local wanted package program missing=()
    for wanted in "$@"; do
        package=${wanted%%=*} program=${wanted#*=}
        if [[ $wanted == *=* ]] && command -v "$program" >/dev/null; then
            continue
        fi
        if ! package_installed "$package"; then
            missing+=("$package")
        fi
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    command -v apt-get >/dev/null || die "missing, and there is no apt-get here to install them: ${missing[*]}"
    need_root_or_sudo "installing ${missing[*]}"
    local apt_get=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get -q -y -o DPkg::Lock::Timeout=600 -o APT::Install-Recommends=false)
    say "installing ${missing[*]}"
    if "${apt_get[@]}" install "${missing[@]}" >&2; then
        return
    fi
    # Old package lists name files that mirrors no longer have, and a fresh container has no lists at all.
    say "trying again with fresh package lists"
    "${apt_get[@]}" update >&2 || say "apt-get update failed: is there a network?"
    for package in "${missing[@]}"; do
        "${apt_get[@]}" install "$package" >&2 || die "the package $package cannot be installed; apt-get says why above"
    done
}

# ---- Python --------------------------------------------------------------------------------------

python_is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# Prints a Python that is at least 3.10, the system's own if it is.
find_python() {
    local python
    for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.10; do
        if command -v "$python" >/dev/null && python_is_recent "$python"; then
            command -v "$python"
            return
        fi
    done
    die "gdbhyp needs Python 3.10 or newer, and there is none: on Debian and Ubuntu install python3"
}

# Makes or updates the virtual environment in directory $1: this checkout, editable, with a GDB and all that the tests
# need. Does nothing when that was done before for this checkout and this pyproject.toml.
make_venv() {
    local venv=$1 python wanted stamp
    stamp=$venv/gdbhyp.stamp
    wanted="$gdbhyp_repo $(sha256sum <"$gdbhyp_repo/pyproject.toml")"
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && python_is_recent "$venv/bin/python"; then
        return
    fi
    if ! python_is_recent "$venv/bin/python"; then
        apt_install python3=python3
        python=$(find_python)
        "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
        say "making a virtual environment in $venv"
        mkdir -p "$(dirname "$venv")"
        "$python" -m venv --clear "$venv" >&2 || die "$python cannot make a virtual environment in $venv"
    fi
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install)
    say "installing gdbhyp and what it needs into $venv"
    if ! "${pip[@]}" -e "${gdbhyp_repo}[gdb,test]" >&2; then
        say "trying without the newest GDB (the extra 'gdb'), which is not built for every machine"
        "${pip[@]}" -e "${gdbhyp_repo}[test]" >&2 || die "pip cannot install gdbhyp; it says why above"
    fi
    printf '%s\n' "$wanted" >"$stamp"
}

# ---- the demo hypervisor -------------------------------------------------------------------------

# build_demo OUTDIR [--planted-bug]: makes demo.elf, guest.elf and truth.json.
build_demo() {
    "$gdbhyp_repo/qemu-scripts/demo-hypervisor/build" "$@"
}

# start_qemu SOCKET CPUS KERNEL [QEMU OPTIONS…]: starts QEMU in the background as the demo hypervisor wants it, and
# returns when GDB can attach to the unix socket. Sets qemu_pid; what QEMU says goes to SOCKET.log.
start_qemu() {
    local socket=$1 cpus=$2 kernel=$3
    shift 3
    [[ -r $kernel ]] || die "there is no $kernel to start: build it first"
    ((${#socket} < 108)) || die "a unix socket's path has at most 107 characters: $socket"
    rm -f "$socket"
    "${GDBHYP_QEMU:-qemu-system-aarch64}" -M virt,virtualization=on,gic-version=3 -cpu max -smp "$cpus" -m 256M \
        -nographic -nodefaults -kernel "$kernel" -gdb "unix:$socket,server=on,wait=off" "$@" \
        </dev/null >"$socket.log" 2>&1 &
    qemu_pid=$!
    while [[ ! -S $socket ]]; do
        kill -0 "$qemu_pid" 2>/dev/null || die "QEMU ended at once: $(<"$socket.log")"
        sleep 0.02
    done
}

# Ends what start_qemu started; harmless when it has ended, or never began. For a trap on EXIT.
stop_qemu() {
    if [[ -n ${qemu_pid-} ]]; then
        kill "$qemu_pid" 2>/dev/null || true
        wait "$qemu_pid" 2>/dev/null || true
        qemu_pid=''
    fi
}
