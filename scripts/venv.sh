# shellcheck shell=sh disable=SC2154
# Sourced by the other scripts: leaves the project with its $extras in .venv, or says in one sentence what is missing.
# $PYTHON names the interpreter to make .venv with. CDPATH is emptied because it can send `cd` elsewhere.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# The folder is part of the state: an editable install points there. Extras nest: cpu begins cpu,train,test.
stamp=.venv/installed
state="$({ pwd && cat pyproject.toml constraints.txt; } | cksum) $extras"

installed() {
    [ -x .venv/bin/python ] || return 1
    case $(cat "$stamp" 2>/dev/null) in "$state" | "$state,"*) ;; *) return 1 ;; esac
}

# If its creation was killed, .venv lacks a part of pip; if the installation was killed, the stamp is `unfinished`.
usable() {
    [ "$(cat "$stamp" 2>/dev/null)" != unfinished ] || return 1
    .venv/bin/python -c 'import pip._internal.commands.install, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Sets $python to the first interpreter that is new enough.
find_python() {
    old=
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
    for python in "$@"; do
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && return
        old=${old:-"$python is Python $version"}
    done
    [ -z "$old" ] || fail "$old, and vaeserve needs 3.11 or newer: install that, or name it with PYTHON=/path/to/python"
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON does not run: unset it, or let it name Python 3.11 or newer"
    fail "there is no python3 on the PATH: install Python 3.11 or newer, with its venv module"
}

make_venv() {
    find_python
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make a virtual environment: install it with: apt-get install python3-venv"
    "$python" -m venv --clear .venv >/dev/null 2>&1 ||
        fail "$python could not make $PWD/.venv: see whether the disk is full or read-only"
}

if ! installed; then
    usable || make_venv
    echo "${0##*/}: installing .[$extras] into .venv, which takes a while" >&2
    echo unfinished >"$stamp"
    .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
        -c constraints.txt -e ".[$extras]" >.venv/pip.log 2>&1 || {
        rm -f "$stamp"
        fail "pip could not install the dependencies: see whether there is a network; its output is in .venv/pip.log"
    }
    echo "$state" >"$stamp"
fi
