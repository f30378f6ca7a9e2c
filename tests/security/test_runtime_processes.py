# SPDX-License-Identifier: Apache-2.0
"""
What a container sees of the processes that make it: their descriptors, their
program, their environment, their keys.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import containerlib as cl
from containerlib import shim
from containerlib.errors import WorkingDirectoryError

HELPER = Path(str(resources.files("containerlib") / "shim" / "_bin" / "containerlib-init"))
MEMFD = "/memfd:containerlib-init (deleted)"

# Looks at every process over and over: which of their descriptors lead to
# another root, and what they execute.
WATCH = """
import json, os
leaks, programs, seen = set(), set(), 0
root = os.stat("/").st_dev, os.stat("/").st_ino
print("ready", flush=True)
while not os.path.exists("/tmp/stop"):
    for pid in os.listdir("/proc"):
        if not pid.isdecimal() or int(pid) == os.getpid():
            continue
        base = f"/proc/{pid}"
        try:
            programs.add(os.readlink(f"{base}/exe"))
        except OSError:
            pass
        try:
            with open(f"{base}/exe", "r+b"):
                leaks.add(f"{base}/exe can be written")
        except OSError:
            pass
        try:
            names = os.listdir(f"{base}/fd")
        except OSError:
            continue
        seen += 1
        for name in names:
            if int(name) < 3:
                continue
            try:
                top = os.stat(f"{base}/fd/{name}" + "/.." * 40)
            except OSError:
                continue
            if (top.st_dev, top.st_ino) != root:
                leaks.add(name)
print(json.dumps([sorted(leaks), sorted(programs), seen]), flush=True)
"""


def watched(watcher: cl.Container, act: Callable[[], object]) -> tuple[set[str], set[str], int]:
    """
    What WATCH has seen while *act* ran.
    """
    watcher.wait_until(log="ready", timeout=20)
    act()
    watcher.exec(["touch", "/tmp/stop"])
    watcher.wait(30)
    leaks, programs, seen = json.loads(watcher.logs(tail=1))
    return set(leaks), set(programs), seen


@pytest.mark.slow
@pytest.mark.parametrize("capabilities", [(), ("SYS_PTRACE",)], ids=["default", "SYS_PTRACE"])
def test_no_directory_of_the_host_is_open_beside_a_watcher(
    start: Callable[..., cl.Container], host_python: str, capabilities: tuple[str, ...]
) -> None:
    """
    While processes are started inside, by exec and by health checks, no
    descriptor of theirs that a neighbour can reach leads out of the
    container, and none executes the Python of the caller (CVE-2016-9962,
    CVE-2019-5736).
    """
    check = {"test": ["CMD", "true"], "interval": 0.05}
    watcher = start("host", [host_python, "-c", WATCH], cap_add=capabilities, healthcheck=check)

    def act() -> None:
        for _ in range(60):
            watcher.exec(["true"])

    leaks, programs, _ = watched(watcher, act)

    assert set() == leaks
    assert not {program for program in programs if "python" in program} - {os.path.realpath(host_python)}


@pytest.mark.slow
@pytest.mark.cgroups
def test_the_first_process_is_unreadable_in_a_joined_namespace(
    start: Callable[..., cl.Container], run: Callable[..., cl.Completed[str]], host_python: str
) -> None:
    """
    A container whose process namespace is joined sees the other's first
    process from its birth, but none of the directories that it has open
    (CVE-2016-9962).
    """
    watcher = start("host", [host_python, "-c", WATCH])

    def act() -> None:
        for _ in range(40):
            run("host", ["true"], pid=f"container:{watcher.id}")

    leaks, _, _ = watched(watcher, act)

    assert set() == leaks


def test_programs_inside_cannot_write_the_helper(
    start: Callable[..., cl.Container], busybox: cl.Image
) -> None:
    """
    The process that reaps inside runs from a sealed copy in memory: opening it
    for writing fails, and the installed file stays as it is (CVE-2019-5736).
    """
    before = hashlib.sha256(HELPER.read_bytes()).hexdigest()
    container = start(init=True)
    program = (
        "readlink /proc/1/exe; for p in /proc/1/exe /proc/self/exe; "
        "do (echo x >>$p) 2>/dev/null && echo written; done; true"
    )

    output = container.exec(["sh", "-c", program]).stdout

    assert MEMFD == output.splitlines()[0]
    assert "written" not in output
    assert before == hashlib.sha256(HELPER.read_bytes()).hexdigest()


@pytest.mark.parametrize("line", ["#!/proc/self/exe\n", "#!/proc/self/exe run\n", "#!/proc/1/exe\n"])
def test_an_entrypoint_that_names_the_helper(
    run: Callable[..., cl.Completed[str]], hostile: Callable[..., str], line: str
) -> None:
    """
    An entrypoint that makes the helper execute itself gets nowhere, and the
    installed file stays as it is (CVE-2019-5736).
    """
    if os.environ.get("CONTAINERLIB_TEST_SANITIZE"):
        pytest.skip("the sanitizers' helper is linked dynamically: it cannot start inside at all")

    def change(top: Path) -> None:
        (top / "entry").write_text(line + "exec 3<>/proc/self/exe\n", encoding="utf-8")
        (top / "entry").chmod(0o755)

    before = HELPER.read_bytes()
    image = hostile(change)

    result = run(image, ["/entry"], check=False, timeout=20)

    assert 0 != result.exit_code
    assert before == HELPER.read_bytes()


def test_the_helper_is_sealed() -> None:
    """
    The copy that runs can be neither written, grown, shrunk nor unsealed.
    """
    seals = fcntl.fcntl(shim.helper_fd(), fcntl.F_GET_SEALS)
    wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

    assert wanted == seals & wanted


def test_no_page_of_an_installed_file_is_shared(
    start: Callable[..., cl.Container], busybox: cl.Image
) -> None:
    """
    What a container could reach of the helper is another file than the
    installed one, so that a hole like Dirty Pipe (CVE-2022-0847) changes
    nothing on disk.
    """
    container = start(init=True)
    device, inode = container.exec(["stat", "-L", "-c", "%d %i", "/proc/1/exe"]).stdout.split()
    installed = HELPER.stat()

    assert (installed.st_dev, installed.st_ino) != (int(device), int(inode))
    assert str(HELPER) not in container.exec(["cat", "/proc/1/maps"]).stdout


@pytest.mark.parametrize("tty", [False, True])
def test_no_descriptor_of_the_caller_is_inherited(
    run: Callable[..., cl.Completed[str]],
    start: Callable[..., cl.Container],
    busybox: cl.Image,
    canary: Any,
    tty: bool,
) -> None:
    """
    A caller's open directory without close-on-exec reaches neither the first
    process nor one that is executed inside (CVE-2024-21626).
    """
    fds = [os.open(canary.path, os.O_RDONLY) for _ in range(8)]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        first = run(command=["ls", "/proc/self/fd"], tty=tty).stdout.split()
        container = start(healthcheck={"test": ["CMD-SHELL", "ls /proc/self/fd"], "interval": 0.05})
        second = container.exec(["ls", "/proc/self/fd"], tty=tty).stdout.split()
        container.wait_until(healthy=True, timeout=20)
        third = container.inspect()["State"]["Health"]["Log"][-1]["Output"].split()
    finally:
        for fd in fds:
            os.close(fd)

    # The fourth is the directory that ls reads.
    assert ["0", "1", "2", "3"] == first
    assert ["0", "1", "2", "3"] == second
    assert ["0", "1", "2", "3"] == third


@pytest.mark.slow
def test_a_working_directory_in_proc(
    run: Callable[..., cl.Completed[str]], busybox: cl.Image, start: Callable[..., cl.Container]
) -> None:
    """
    No number of a descriptor makes a working directory, at the start or in
    exec (CVE-2024-21626).
    """
    container = start()
    for number in range(3, 65):
        path = f"/proc/self/fd/{number}"
        with pytest.raises(WorkingDirectoryError):
            run(command=["pwd"], working_dir=path)
        with pytest.raises(WorkingDirectoryError):
            container.exec(["pwd"], working_dir=path)


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/7", "/proc/1/root", "/proc/1/cwd/x", "/dev/fd/3", "/proc/thread-self/root"]
)
def test_a_working_directory_that_the_image_sets(
    run: Callable[..., cl.Completed[str]], hostile: Callable[..., str], path: str
) -> None:
    """
    The image's own working directory is looked at as strictly; a link of /proc
    is never followed on the way to it.
    """
    image = hostile(config={"WorkingDir": path})

    with pytest.raises(WorkingDirectoryError):
        run(image, ["pwd"])


@pytest.mark.root
@pytest.mark.cgroups
def test_a_working_directory_beside_the_host_s_processes(
    run: Callable[..., cl.Completed[str]], hostile: Callable[..., str], canary: Any
) -> None:
    """
    With the host's processes in view, a working directory below the root of
    one of them is refused, and nothing is made there.
    """
    image = hostile(config={"WorkingDir": f"/proc/{os.getpid()}/root{canary.path}/made"})

    with pytest.raises(WorkingDirectoryError):
        run(image, ["pwd"], pid="host")


def test_the_caller_s_environment_stays_outside(
    run: Callable[..., cl.Completed[str]],
    start: Callable[..., cl.Container],
    busybox: cl.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    No variable of the caller is seen by a container or by what runs in it.
    """
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "1234")
    container = start(init=True)

    assert "SECRET" not in run(command=["sh", "-c", "env; cat /proc/*/environ"]).stdout
    assert "SECRET" not in container.exec(["sh", "-c", "env; cat /proc/*/environ"]).stdout


KEYCTL = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
number, key = int(sys.argv[1]), int(sys.argv[2])
session = libc.syscall(number, 0, -3, 0)
buffer = ctypes.create_string_buffer(64)
read = libc.syscall(number, 11, key, buffer, 64)
print(session, read, buffer.value.decode())
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of two processors")
def test_the_caller_s_keys_stay_outside(
    run: Callable[..., cl.Completed[str]], start: Callable[..., cl.Container], host_python: str
) -> None:
    """
    Even where the filter allows keyctl, the session keyring inside is another
    than the caller's, and a key in the caller's cannot be read.
    """
    add_key, keyctl = (248, 250) if platform.machine() == "x86_64" else (217, 219)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(keyctl, 1, None) < 0:
        pytest.skip(f"no session keyring: {os.strerror(ctypes.get_errno())}")
    mine = libc.syscall(keyctl, 0, -3, 0)
    key = libc.syscall(add_key, b"user", b"containerlib-test", b"secret", 6, -3)
    if key < 0:
        pytest.skip(f"no key can be added: {os.strerror(ctypes.get_errno())}")
    command = [host_python, "-c", KEYCTL, str(keyctl), str(key)]
    options = {"security_opt": ["seccomp=unconfined"]}

    first = run("host", command, **options).stdout.split()
    container = start("host", **options)
    second = container.exec(command).stdout.split()

    for session, read, *text in (first, second):
        assert mine != int(session)
        assert (-1, []) == (int(read), text)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"cap_add": ["NET_ADMIN"]},
        {"user": "1000"},
        {"privileged": True},
        {"user": "user", "cap_add": ["ALL"]},
    ],
)
def test_nothing_is_inheritable(
    run: Callable[..., cl.Completed[str]],
    start: Callable[..., cl.Container],
    busybox: cl.Image,
    more: dict[str, Any],
    lane: str,
) -> None:
    """
    No capability is inheritable, in run, in exec and in a health check
    (CVE-2022-29162, CVE-2022-27649, CVE-2022-27650, CVE-2022-27651).
    """
    if "user" in more and lane == "single-id":
        pytest.skip("one id only")
    command = ["grep", "CapInh", "/proc/self/status"]
    check = {"test": ["CMD", *command], "interval": 0.05}
    container = start(healthcheck=check, **more)
    container.wait_until(healthy=True, timeout=20)
    seen = [
        run(command=command, **more).stdout,
        container.exec(command).stdout,
        container.exec(command, privileged=True).stdout,
        container.inspect()["State"]["Health"]["Log"][-1]["Output"],
        container.exec(["grep", "CapInh", "/proc/1/status"]).stdout,
    ]

    assert ["CapInh:\t0000000000000000\n"] * 5 == seen


@pytest.mark.parametrize("privileged", [False, True])
def test_an_ordinary_user_holds_no_capability(
    run: Callable[..., cl.Completed[str]], busybox: cl.Image, lane: str, privileged: bool
) -> None:
    """
    A user other than root has no effective, permitted or ambient capability,
    whatever the container has.
    """
    if lane == "single-id":
        pytest.skip("one id only")
    text = run(command=["grep", "Cap[PEA]", "/proc/self/status"], user="1000", privileged=privileged).stdout

    assert ["0000000000000000"] * 3 == [line.split()[1] for line in text.splitlines()]
