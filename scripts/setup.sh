#!/usr/bin/env bash
# Makes .venv with the package in it, and the system libraries it needs. Called by `make setup`,
# which skips it while pyproject.toml, constraints-cpu.txt and this file are unchanged.
#
#   PYTHON   the interpreter to build on   (default python3; 3.10 or newer)
#   TORCH    cpu or cuda                   (default cpu; either is the version in constraints-cpu.txt)
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-cpu}
TORCH_PIN=$(grep -o '^torch==[^ ]*' constraints-cpu.txt)
OPEN3D_LIBRARIES=(libusb-1.0-0 libgl1 libgomp1 libegl1 libx11-6)

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# Installs Debian packages as root or through a sudo that asks nothing; otherwise says what to type.
apt_install() {
  command -v apt-get >/dev/null || fail "install the equivalents of these Debian packages, then run again: $*"
  local root=(env)
  if [ "$(id -u)" -ne 0 ]; then
    sudo -n true 2>/dev/null || fail "run this once, then again what you ran: sudo apt-get install -y $*"
    root=(sudo)
  fi
  say "installing system packages: $*"
  local output
  output=$({
    "${root[@]}" apt-get update -qq || true # an old list may do
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  } 2>&1) || fail "apt-get could not install $*: $output"
}

[ "$TORCH" = cpu ] || [ "$TORCH" = cuda ] || fail "TORCH=$TORCH: want cpu or cuda"

# 1. Python and its virtual environment.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  command -v "$PYTHON" >/dev/null || apt_install python3 python3-venv
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$PYTHON is $("$PYTHON" -V 2>&1): want Python 3.10 or newer (choose one with: make setup PYTHON=python3.12)"
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    apt_install "$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  say "making .venv with $("$PYTHON" -V)"
  "$PYTHON" -m venv --clear .venv
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check -qq "$@"; }

# 2. PyTorch first, alone. PyPI's Linux build brings several GB of CUDA; the CPU build stands in
#    PyTorch's own index. Where that cannot be reached, pip takes the pinned version it does find.
[ "$TORCH" = cpu ] && other=cuda || other=cpu
if [ -e ".venv/.setup-$other" ]; then
  pip uninstall --yes torch # the other build, under the same version number
fi
if [ "$TORCH" = cpu ] && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
  say "installing $TORCH_PIN, CPU build"
  pip install --no-deps --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/cpu "$TORCH_PIN" ||
    say "download.pytorch.org did not answer: taking PyPI's build (larger, works on a CPU as well)"
fi

# 3. The package itself, editable, and what it depends on. PyPI has ROS for x86-64 alone; elsewhere its tests skip.
[ "$(uname -m)" = x86_64 ] && ros=,ros || ros=
say "installing inspatio-sim and its tools into .venv (minutes, the first time)"
pip install --constraint constraints-cpu.txt --editable '.[dev,depth,wan,rl,rllib'"$ros]"

# 4. System libraries: none are touched where Open3D already imports.
if ! .venv/bin/python -c 'import open3d' 2>/dev/null; then
  apt_install "${OPEN3D_LIBRARIES[@]}"
  .venv/bin/python -c 'import open3d' || fail "Open3D does not import; see the line above"
fi

# 5. tf2_msgs, which PyPI lacks: compiled here. Without a compiler everything but /tf works, so it goes on.
[ -z "$ros" ] || .venv/bin/inspatio-ros-tf2 >/dev/null || say "no /tf from the ROS node; see the line above"

rm -f .venv/.setup-*
touch ".venv/.setup-$TORCH"
say "ready: .venv/bin/inspatio-sim --help"
