# SPDX-License-Identifier: Apache-2.0
"""
A real distribution: Debian, as mmdebstrap makes it.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

import containerlib as cl

pytestmark = [pytest.mark.slow, pytest.mark.subids]

SUITE = "bookworm"


@pytest.fixture(scope="module", name="tarball")
def _tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A minimal Debian as a tar, kept in $CONTAINERLIB_TEST_DEBIAN if that is set.
    """
    kept = os.environ.get("CONTAINERLIB_TEST_DEBIAN")
    if kept and (found := sorted(Path(kept).glob("*.tar*"))):
        return found[0]
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed (Debian: mmdebstrap)")
    directory = Path(kept) if kept else tmp_path_factory.mktemp("debian")
    path = directory / f"{SUITE}.tar"
    partial = directory / f".{os.getpid()}.tar"
    made = subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
            "--variant=minbase",
            SUITE,
            str(partial),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=directory,
        # Its own temporary directory must be open to other ids.
        env={**os.environ, "TMPDIR": "/tmp"},
    )
    if made.returncode != 0:
        pytest.skip(f"mmdebstrap cannot make Debian here: {made.stderr.strip()[-300:]}")
    partial.rename(path)
    return path


@pytest.fixture(scope="module", name="debian")
def _debian(tarball: Path, tmp_path_factory: pytest.TempPathFactory):
    """
    The image in an engine of this module, current during its tests.
    """
    top = tmp_path_factory.mktemp("engine")
    with cl.Engine(top / "root", top / "run") as engine:
        image = cl.Image.from_rootfs(tarball, tag="debian")
    yield engine, image
    for container in cl.Container.list(all=True, engine=engine):
        container.remove(force=True)
    image.remove(force=True)


@pytest.fixture(name="image", autouse=True)
def _image(debian):
    engine, image = debian
    with engine:
        yield image


def test_apt_get(image):
    """apt-get runs and tells its version."""
    assert cl.run(image, ["apt-get", "--version"], network="none").stdout.startswith("apt 2.")


def test_programs_of_the_distribution(image):
    """Perl, dpkg's database and users are those of the distribution."""
    script = "perl -e 'print 6*7'; echo; dpkg-query -W -f '${Status}' bash; echo; id -un"
    out = cl.run(image, ["sh", "-c", script], network="none").stdout
    assert ["42", "install ok installed", "root"] == out.splitlines()
    assert "www-data\n" == cl.run(image, ["id", "-un"], user="www-data", network="none").stdout


def test_owners_and_modes_came_along(image):
    """Set-user-ID programs, other owners and sticky directories are as in the tar."""
    out = cl.run(
        image,
        ["stat", "-c", "%a %U:%G", "/usr/bin/passwd", "/etc/shadow", "/tmp", "/var/mail"],
        network="none",
    ).stdout
    assert ["4755 root:root", "640 root:shadow", "1777 root:root", "2775 root:mail"] == out.splitlines()


def test_a_package_is_removed(image):
    """Dpkg can change the system of a container, whose image stays as it was."""
    purge = "dpkg --purge --force-depends tzdata >/dev/null 2>&1; "
    look = "test -e /usr/share/zoneinfo/UTC; echo $?"
    assert "1\n" == cl.run(image, ["bash", "-c", purge + look], network="none").stdout
    assert "0\n" == cl.run(image, ["bash", "-c", look], network="none").stdout


@pytest.mark.parametrize("init", [False, True], ids=["plain", "init"])
def test_bash_on_a_terminal(image, init, eventually):
    """An interactive bash, joined over a terminal, answers, has job control and hands its exit code out."""
    master, slave = pty.openpty()
    seen = b""
    result: list[object] = []

    def see(text: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 30
        while text not in seen:
            ready, _, _ = select.select([master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, seen
            seen += os.read(master, 65536)
        seen = seen[seen.index(text) + len(text) :]

    with (
        open(slave, "r+b", buffering=0) as terminal,
        cl.Container.run(image, ["bash"], tty=True, stdin_open=True, network="none", init=init) as container,
    ):
        thread = threading.Thread(
            target=lambda: result.append(container.interact(stdin=terminal, stdout=terminal, stderr=terminal))
        )
        thread.start()
        os.write(master, b"echo $((40+2))\n")
        see(b"42\r\n")
        os.write(master, b"sleep 1000\n")
        eventually(lambda: "sleep" in [process.command for process in container.top()])
        os.write(master, b"\x1a")
        see(b"Stopped")
        os.write(master, b"exit 3\n")
        see(b"There are stopped jobs")
        os.write(master, b"exit 3\n")
        thread.join(30)
        assert [3] == result
        assert 3 == container.wait()
    os.close(master)
