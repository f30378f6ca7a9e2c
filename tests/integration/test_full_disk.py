# SPDX-License-Identifier: Apache-2.0
"""
A disk that is full: the engine on a small tmpfs of its own, in a mount
namespace that ends with the test.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.root

PRELUDE = """
import os, sys
import containerlib as cl
engine = cl.Engine({root!r}, {run!r}).__enter__()
cl.Image.from_rootfs({rootfs!r}, tag="busybox")

def free():
    return os.statvfs({root!r}).f_bavail * os.statvfs({root!r}).f_bsize

def fill(leave=0):
    with open({root!r} + "/filler", "wb", buffering=0) as file:
        try:
            while free() > leave:
                file.write(bytes(min(65536, max(4096, free() - leave))))
        except OSError:
            pass

def left():
    return [name for name in os.listdir({root!r} + "/containers") if name != "by-name"]

"""


@pytest.fixture(name="small")
def _small(tmp_path, busybox_rootfs):
    """
    Run a program whose engine stands on a tmpfs of 12 MB; what it printed.
    """
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed (Debian: util-linux)")
    root, run = tmp_path / "disk", tmp_path / "run"
    root.mkdir()

    def small(source: str) -> list[str]:
        prelude = PRELUDE.format(root=str(root), run=str(run), rootfs=str(busybox_rootfs))
        done = subprocess.run(
            [
                "unshare",
                "-m",
                "--propagation",
                "private",
                "sh",
                "-c",
                'mount -t tmpfs -o size=12m tmpfs "$0" && exec "$@"',
                str(root),
                sys.executable,
                "-W",
                "error",
                "-c",
                prelude + textwrap.dedent(source),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout.splitlines()

    return small


def test_a_container_that_fills_the_disk(small):
    """A program that writes until the disk is full gets the error, its code is right, and it is removed."""
    out = small(
        """
        script = "cat /dev/zero > /big; echo code $?; exit 7"
        done = cl.run("busybox", ["sh", "-c", script], network="none", check=False)
        print(done.exit_code, done.stdout.split(), "No space" in done.stderr)
        container = cl.Container.create("busybox", ["sh", "-c", script], network="none")
        container.start()
        print(container.wait(timeout=20), container.status, container.exit_code)
        container.remove()
        print(left(), free() > 5_000_000)
        """
    )
    assert ["7 ['code', '1'] True", "7 exited 7", "[] True"] == out


def test_a_log_on_a_full_disk(small):
    """A log that meets a full disk loses lines, joins none with another, and tells so."""
    out = small(
        """
        script = '''
        i=0; while [ $i -lt 40000 ]; do echo "line $i ...................................."; i=$((i+1)); done
        echo full; read x; echo after; exit 9
        '''
        container = cl.Container.create("busybox", ["sh", "-c", script], network="none", stdin_open=True)
        fill(leave=100_000)
        container.start()
        attachment = container.attach(stdout=False, stderr=False)
        import time
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and container.top()[0].state != "S" or free() > 4096:
            time.sleep(0.01)
        print("running", container.status)
        os.unlink(engine.root / "filler")
        attachment.stdin.write(b"x\\n")
        print(container.wait(timeout=20), container.exit_code)
        attachment.close()
        lines = container.logs().splitlines()
        raw = (engine.store.containers.path(container.id) / "log").read_bytes()
        import re
        good = re.compile(rb"^[0-9T:.-]{29}Z (stdout|stderr) [FP] ")
        print(all(good.match(line) for line in raw.splitlines()), raw.endswith(b"\\n"))
        words = [line for line in lines if line.startswith("line ")]
        print(all(re.fullmatch(r"line \\d* ?[.]{0,36}", line) for line in words), 0 < len(words) < 40000)
        print(lines[-1], any("bytes of the log were lost" in line for line in lines))
        container.remove()
        print(left())
        """
    )
    assert ["running running", "9 9", "True True", "True True", "after True", "[]"] == out


def test_nothing_half_made_on_a_full_disk(small):
    """A container that cannot be made for want of space is an error, and nothing of it is left."""
    out = small(
        """
        import errno
        fill()
        failures = []
        for call in (lambda: cl.Container.create("busybox", ["true"], network="none", name="one",
                                                 labels={"big": "x" * 100_000}),
                     lambda: cl.run("busybox", ["true"], network="none", name="two",
                                    labels={"big": "x" * 100_000})):
            try:
                call()
            except cl.ContainerlibError as error:
                failures.append((type(error).__name__, getattr(error, "errno", None) == errno.ENOSPC))
        print(failures)
        os.unlink(engine.root / "filler")
        print(left(), os.listdir(engine.root / "containers" / "by-name"))
        print(cl.run("busybox", ["echo", "again"], network="none", name="one").stdout.strip())
        """
    )
    assert ["[('KernelError', True), ('KernelError', True)]", "[] []", "again"] == out


def test_state_is_kept_on_a_full_disk(small):
    """Start, exit codes, restarts, stop and removal of a container that exists need no space."""
    out = small(
        """
        container = cl.Container.create("busybox", ["sh", "-c", "sleep 0.1; exit 3"], network="none")
        loop = cl.Container.create("busybox", ["sleep", "1000"], network="none", init=True)
        fill()
        for _ in range(2):
            try:
                container.start()
            except cl.ContainerlibError as error:
                # The overlay's work directory or the log may need a block.
                print("not started:", type(error).__name__)
                break
            assert container.wait(timeout=20) == 3, container.state
        else:
            print("started")
        os.unlink(engine.root / "filler")
        loop.start()
        fill()
        loop.stop(timeout=5)
        print(loop.status, loop.exit_code)
        for each in (container, loop):
            each.remove()
        print(left())
        """
    )
    assert out[0] in ("started", "not started: MountError", "not started: StartFailed")
    assert ["exited 143", "[]"] == out[1:]
