# SPDX-License-Identifier: Apache-2.0
"""
Any step of a start may fail, and any process may be killed at it.

strace makes one system call of a whole run fail, or kills who makes it:
afterwards the caller has a documented error or a true result, everything can
be removed, and nothing is left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

import containerlib as cl

PROGRAM = """
import json, sys
import containerlib as cl
with cl.Engine(sys.argv[1], sys.argv[2]):
    try:
        done = cl.run("busybox", ["echo", "done"], network="none", check=False)
    except (cl.ContainerlibError, OSError) as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
    else:
        print(json.dumps({"exit_code": done.exit_code, "stdout": done.stdout}))
"""

# The calls of a start, with some of the places where each is made.
CALLS = {
    "bind": (1,),
    "capset": (1,),
    "clone3": (1,),
    "close_range": (1,),
    "epoll_create1": (1,),
    "execveat": (1,),
    "fchdir": (1, 2),
    "fsconfig": (1, 4, 12, 30),
    "fsmount": (1, 2, 5),
    "fsopen": (1, 2, 5),
    "keyctl": (1,),
    "listen": (1,),
    "mknodat": (1, 3),
    "mount": (1, 2),
    "mount_setattr": (1, 3),
    "move_mount": (1, 2, 8),
    "open_tree": (1, 3),
    "openat2": (1, 5, 20),
    "pivot_root": (1,),
    "ppoll": (1,),
    "prctl": (1, 2, 10),
    "pwrite64": (1, 2),
    "setgroups": (1,),
    "sethostname": (1,),
    "setresgid": (1,),
    "setresuid": (1,),
    "signalfd4": (1,),
    "timerfd_create": (1,),
    "umount2": (1,),
    "unshare": (1,),
    "waitid": (1,),
}
CASES = [(call, place) for call, places in CALLS.items() for place in places]


@pytest.fixture(name="traced", scope="module")
def _traced() -> str:
    """
    A working strace.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed (Debian: strace)")
    if os.environ.get("CONTAINERLIB_TEST_SANITIZE"):
        pytest.skip("the sanitizers' runtime makes the same calls for itself")
    tried = subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], check=False, capture_output=True)
    if tried.returncode != 0:
        pytest.skip(f"strace cannot trace here: {tried.stderr.decode().strip()}")
    return strace


def inject(strace: str, engine: cl.Engine, fault: str, call: str) -> dict[str, object]:
    """
    Run a container with one fault; what the program reports, nothing if it was killed.
    """
    done = subprocess.run(
        [
            *(strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}"),
            *(sys.executable, "-c", PROGRAM, str(engine.root), str(engine.run_root)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    report: dict[str, object] = json.loads(done.stdout) if done.stdout else {}
    return report


def remains(engine: cl.Engine) -> list[str]:
    """
    What is there of containers after everything that can be found was removed.
    """
    for container in cl.Container.list(all=True, engine=engine):
        container.remove(force=True)
    engine.prune()
    left = [name for name in os.listdir(engine.root / "containers") if name != "by-name"]
    left += os.listdir(engine.root / "containers" / "by-name")
    return left + (os.listdir(engine.run_root) if engine.run_root.exists() else [])


@pytest.mark.parametrize(("call", "place"), CASES)
def test_a_call_that_fails(traced: str, engine: cl.Engine, busybox: cl.Image, call: str, place: int) -> None:
    """
    A system call that fails ends in an error that says so, or in the true result.
    """
    report = inject(traced, engine, f"error=ENOMEM:when={place}", call)

    assert report.get("exit_code") in (None, 0)
    assert report.get("stdout", "done\n") == "done\n"
    assert report, "the program was killed"
    assert [] == remains(engine)


@pytest.mark.parametrize(("call", "place"), CASES)
def test_a_process_that_is_killed(
    traced: str, engine: cl.Engine, busybox: cl.Image, call: str, place: int
) -> None:
    """
    Whoever is killed at a system call takes no exit code for another and leaves nothing that stays.
    """
    report = inject(traced, engine, f"signal=SIGKILL:when={place}", call)

    assert report.get("exit_code") in (None, 0, 137)
    assert [] == remains(engine)
