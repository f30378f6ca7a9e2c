# SPDX-License-Identifier: Apache-2.0
"""
Containers made where this process is itself in a user namespace.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import containerlib as cl
with cl.Engine(sys.argv[1]):
    with cl.Container.run("host", ["sleep", "1000"], network="none", init=True) as container:
        print(container.exec(["echo", "inside"], tty=True).stdout.strip(), container.status)
"""


def _userns() -> bool:
    return shutil.which("unshare") is not None and subprocess.run(["unshare", "-Urm", "true"]).returncode == 0


@pytest.mark.skipif(not _userns(), reason="no user namespace can be made with unshare(1)")
@pytest.mark.parametrize("flags", [["-Urm"], ["-Urmpf", "--mount-proc"]], ids=" ".join)
def test_as_the_only_id_of_a_user_namespace(tmp_path: Path, flags: list[str]) -> None:
    """
    The root of a namespace with one id runs containers on the host image.
    """
    argv = ["unshare", *flags, sys.executable, "-c", PROGRAM, str(tmp_path / "root")]
    done = subprocess.run(argv, capture_output=True, text=True)

    assert ("inside running\n", 0) == (done.stdout, done.returncode), done.stderr
