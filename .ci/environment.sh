# SPDX-License-Identifier: Apache-2.0
# Sourced from the project's directory: sets $python and makes ./.venv.

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "containerlib needs Python 3.11 or later: set PYTHON to one" >&2
  exit 1
fi
if ! "$python" -m pip --version >/dev/null 2>&1; then
  echo "$python has no pip: apt-get install python3-pip" >&2
  exit 1
fi
include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
if [ ! -e "$include/Python.h" ]; then
  if [ "$(id -u)" = 0 ] && [ "${include#/usr/include/}" != "$include" ] && command -v apt-get >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-dev
  else
    echo "$include/Python.h is missing: apt-get install python3-dev" >&2
    exit 1
  fi
fi
# Without ensurepip, which is a package of its own on Debian: the pip that is there serves the environment.
[ -x .venv/bin/python ] || "$python" -m venv --without-pip .venv
