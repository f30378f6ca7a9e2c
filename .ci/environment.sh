# SPDX-License-Identifier: Apache-2.0
# Sourced from the project's directory: sets $python, makes ./.venv, and sees to Python's headers.

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "containerlib needs Python 3.11 or later: set PYTHON to one" >&2
  exit 1
fi
if ! "$python" -m pip --version >/dev/null 2>&1; then
  echo "$python has no pip: apt-get install python3-pip" >&2
  exit 1
fi
# Without ensurepip, which is a package of its own on Debian: the pip that is there serves the environment.
[ -x .venv/bin/python ] || "$python" -m venv --without-pip .venv

# What apt-get does, with lists and packages below ./.venv: no privilege is needed.
private_apt () {
  apt-get -q -o APT::Sandbox::User= -o Acquire::Languages=none -o "Dir::State::Lists=$headers/lists" -o "Dir::Cache=$headers/cache" "$@"
}

# Debian has Python's headers in a package of their own.
include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
if [ ! -e "$include/Python.h" ]; then
  headers=$PWD/.venv/headers
  if [ "${include#/usr/include/}" = "$include" ] || ! command -v apt-get >/dev/null; then
    echo "$include/Python.h is missing" >&2
    exit 1
  elif [ "$(id -u)" = 0 ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-dev
  elif [ ! -e "$headers$include/Python.h" ]; then
    mkdir -p "$headers/lists/partial" "$headers/cache/archives/partial"
    private_apt update
    (cd "$headers" && private_apt download "lib${include##*/}-dev" && dpkg -x ./*.deb . && rm -r ./*.deb lists cache)
  fi
  if [ -e "$headers$include/Python.h" ]; then
    # The package's pyconfig.h includes that of the machine's architecture, relative to /usr/include.
    export CPATH="$headers/usr/include"
    export SKBUILD_CMAKE_DEFINE="Python_INCLUDE_DIR=$headers$include"
  fi
fi
