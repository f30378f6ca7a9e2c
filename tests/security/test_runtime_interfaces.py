# SPDX-License-Identifier: Apache-2.0
"""
What a container, another user or a stranger could talk to: system calls,
sockets, terminals, the monitor; and what an image says about itself.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import platform
import pty
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

import containerlib as cl
from containerlib.shim import MSG_MAX, Msg

Run = Callable[..., cl.Completed[str]]
Start = Callable[..., cl.Container]
Hostile = Callable[..., str]


# ---- system calls -----------------------------------------------------------------

CALLS = """
import ctypes, errno, json, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
answers = {}
for family in (1, 2, 10, 16, 38, 39, 40, 41, 42, 44):
    try:
        socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_DGRAM).close()
        answers[f"socket {family}"] = "ok"
    except OSError as error:
        answers[f"socket {family}"] = errno.errorcode[error.errno]
for name, number in json.loads(sys.argv[1]).items():
    ctypes.set_errno(0)
    # -1 is no descriptor, no address and no flag that anything accepts.
    result = libc.syscall(number, -1, -1, -1, -1, -1)
    answers[name] = "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
print(json.dumps(answers))
"""

X86_64 = {
    "keyctl": 250,
    "add_key": 248,
    "request_key": 249,
    "bpf": 321,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "perf_event_open": 298,
    "unshare": 272,
    "setns": 308,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "mount_setattr": 442,
    "kexec_load": 246,
    "kexec_file_load": 320,
    "init_module": 175,
    "finit_module": 313,
    "delete_module": 176,
    "open_by_handle_at": 304,
    "quotactl": 179,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "settimeofday": 164,
    "clock_settime": 227,
    "iopl": 172,
    "ioperm": 173,
    "acct": 163,
    "lookup_dcookie": 212,
    "nfsservctl": 180,
    "personality": 135,
    "vhangup": 153,
    "sethostname": 170,
    "setdomainname": 171,
    "syslog": 103,
}
AARCH64 = {
    "keyctl": 219,
    "add_key": 217,
    "request_key": 218,
    "bpf": 280,
    "userfaultfd": 282,
    "io_uring_setup": 425,
    "perf_event_open": 241,
    "unshare": 97,
    "setns": 268,
    "mount": 40,
    "umount2": 39,
    "pivot_root": 41,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "mount_setattr": 442,
    "kexec_load": 104,
    "init_module": 105,
    "finit_module": 273,
    "open_by_handle_at": 265,
    "reboot": 142,
}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of two processors")
@pytest.mark.parametrize("how", ["run", "exec"])
def test_calls_that_are_closed(run: Run, start: Start, host_python: str, how: str) -> None:
    """
    Inside a real container, in its first process and in exec, the calls that
    lead to the kernel's less guarded parts are refused: keys, BPF, io_uring,
    namespaces, mounts, modules, and sockets of the kernel's cryptography and
    of virtual machines.
    """
    numbers = X86_64 if platform.machine() == "x86_64" else AARCH64
    command = [host_python, "-c", CALLS, json.dumps(numbers)]
    text = run("host", command).stdout if how == "run" else start("host").exec(command).stdout
    answers = json.loads(text)

    assert {"EPERM"} == {answers["socket 38"], answers["socket 40"]}
    assert "ok" == answers["socket 1"] == answers["socket 2"]
    # EPERM is the filter's; a call that the profile does not know is ENOSYS.
    assert {} == {name: answers[name] for name in numbers if answers[name] not in ("EPERM", "ENOSYS")}


def test_no_namespace_and_no_mount_inside(run: Run, busybox: cl.Image) -> None:
    """
    Root inside makes no user namespace, in which it would have every capability.
    """
    program = (
        "for f in U m n p i u; do unshare -$f true 2>/dev/null && echo $f; done; "
        "mount -t tmpfs x /tmp 2>/dev/null && echo mount; true"
    )

    assert "" == run(command=["sh", "-c", program]).stdout


def test_devices_of_the_host(run: Run, busybox: cl.Image) -> None:
    """
    A node for a disk or for the kernel's memory cannot be opened, though root
    inside may make it.
    """
    program = (
        "mknod /d b 8 0; mknod /m c 1 1; mknod /v b 254 0; cd /; for f in d m v; "
        "do [ -e $f ] && head -c 1 $f 2>/dev/null && echo open $f; done; true"
    )

    assert "" == run(command=["sh", "-c", program]).stdout


# ---- terminals --------------------------------------------------------------------

PUSH = """
import fcntl, os, termios
for name in (0, 1, 2, "/dev/tty", "/dev/console"):
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOCTTY) if isinstance(name, str) else name
        for byte in b"pushed\\n":
            fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))
        print("pushed", name)
    except OSError as error:
        print("refused", name, error.errno)
print("isatty", [os.isatty(fd) for fd in range(3)])
"""

CALLER = """
import fcntl, sys, termios, containerlib as cl
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
engine = cl.Engine(sys.argv[1], sys.argv[2])
command, tty = [sys.argv[3], "-c", sys.argv[4]], sys.argv[5] == "tty"
result = cl.run("host", command, network="none", engine=engine, tty=tty, check=False)
print(result.stdout)
"""


@pytest.mark.parametrize("tty", ["pipe", "tty"])
def test_no_input_for_the_caller_s_terminal(engine: cl.Engine, host_python: str, tty: str) -> None:
    """
    A container that was started from a terminal can push nothing into it: it
    has another session, and none or its own terminal (CVE-2017-5226).
    """
    terminal, peer = pty.openpty()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, terminal)
        stack.callback(os.close, peer)
        arguments = [str(engine.root), str(engine.run_root), host_python, PUSH, tty]
        caller = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CALLER, *arguments],
            stdin=peer,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = caller.communicate(timeout=60)[0].decode()

        assert 0 == caller.returncode, output
        assert "isatty" in output
        if tty == "pipe":
            assert "pushed" not in output
            assert "[False, False, False]" in output
        # What was pushed would be the caller's next line of input.
        os.set_blocking(peer, False)
        with pytest.raises(BlockingIOError):
            os.read(peer, 100)


def test_no_controlling_terminal_without_a_terminal(run: Run, start: Start, busybox: cl.Image) -> None:
    """
    Neither the first process nor one of exec has a controlling terminal that
    it was not given.
    """
    command = ["sh", "-c", "(: </dev/tty) 2>/dev/null && echo terminal; cut -d' ' -f6,7 /proc/self/stat"]

    assert "terminal" not in run(command=command).stdout
    result = start().exec(command).stdout
    assert "terminal" not in result
    assert "0" == result.split()[-1]


# ---- files of this project ----------------------------------------------------------


def test_no_file_with_privilege_is_shipped() -> None:
    """
    No installed file is set-uid or set-gid, or has capabilities
    (CVE-2020-5291, CVE-2022-47952).
    """
    files = [Path(str(file.locate())) for file in metadata.files("containerlib") or ()]
    top = resources.files("containerlib")
    files += [Path(str(top / "shim" / "_bin" / "containerlib-init"))]
    found = [path for path in files if path.exists()]

    assert any(path.name == "containerlib-init" for path in found)
    assert [] == [path for path in found if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert [] == [path for path in found if "security.capability" in os.listxattr(path)]


# ---- sockets --------------------------------------------------------------------------


@pytest.fixture(name="open_umask")
def _open_umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


def test_the_monitor_s_socket_is_private(
    open_umask: None, engine: cl.Engine, hostile: Hostile, start: Start
) -> None:
    """
    Whatever the caller's umask, the socket has mode 0600 in a directory of
    mode 0700 (CVE-2020-15257, CVE-2021-41091).
    """
    container = start(hostile())
    directory = engine.run_root / container.id

    assert 0o700 == stat.S_IMODE(directory.stat().st_mode)
    assert 0o700 == stat.S_IMODE(engine.run_root.stat().st_mode)
    assert 0o700 == stat.S_IMODE(engine.root.stat().st_mode)
    assert 0o600 == stat.S_IMODE((directory / "attach.sock").stat().st_mode)
    assert 0o700 == stat.S_IMODE(engine.store.containers.path(container.id).stat().st_mode)
    for name in os.listdir(engine.store.containers.path(container.id)):
        path = engine.store.containers.path(container.id) / name
        if path.is_file() and not path.is_symlink():
            assert 0 == path.stat().st_mode & 0o022, name


def test_no_abstract_socket(start: Start, busybox: cl.Image, engine: cl.Engine) -> None:
    """
    No socket is bound in the abstract name space, where modes do not count
    (CVE-2020-15257).
    """
    before = set(Path("/proc/net/unix").read_text(encoding="utf-8").splitlines())
    container = start(tty=True, stdin_open=True)
    container.exec(["true"], tty=True)
    after = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()
    new = [line.split()[7] for line in after if line not in before and len(line.split()) > 7]
    words = ("containerlib", container.id[:12], "attach", "pytest")

    assert [] == [name for name in new if name.startswith("@") and any(word in name for word in words)]


STRANGER = """
import os, socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(20)
try:
    s.connect(f"/proc/self/fd/{sys.argv[1]}/attach.sock")
except PermissionError:
    print("refused")
    sys.exit()
try:
    s.send(struct.pack("ii", 6, 9))
    print("answered" if s.recv(100) else "closed")
except ConnectionError:
    print("closed")
"""


@pytest.mark.root
@pytest.mark.parametrize("opened", [False, True])
def test_another_user_cannot_command_a_monitor(
    engine: cl.Engine, start: Start, busybox: cl.Image, host_python: str, opened: bool
) -> None:
    """
    Another user is refused by the socket's mode, and even with every mode open
    by the credentials of the connection.
    """
    container = start()
    directory = engine.run_root / container.id
    if opened:
        directory.chmod(0o755)
        (directory / "attach.sock").chmod(0o666)
    fd = os.open(directory, os.O_PATH)
    try:
        text = subprocess.run(
            [host_python, "-c", STRANGER, str(fd)],
            check=True,
            capture_output=True,
            text=True,
            user=65534,
            group=65534,
            extra_groups=[],
            pass_fds=[fd],
            cwd="/",
        ).stdout
    finally:
        os.close(fd)

    assert ("closed\n" if opened else "refused\n") == text
    assert "running" == container.status


# ---- a monitor and bad clients -----------------------------------------------------------


@pytest.fixture(name="connect")
def _connect(engine: cl.Engine) -> Iterator[Callable[[cl.Container], socket.socket]]:
    """
    Raw connections to a monitor.
    """
    with contextlib.ExitStack() as stack:

        def connect(container: cl.Container) -> socket.socket:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            connection.settimeout(20)
            fd = os.open(engine.run_root / container.id, os.O_PATH)
            try:
                connection.connect(f"/proc/self/fd/{fd}/attach.sock")
            finally:
                os.close(fd)
            return connection

        yield connect


def message(kind: int, arg: int = 0, payload: bytes = b"") -> bytes:
    """
    One datagram of the protocol.
    """
    return struct.pack("ii", kind, arg) + payload


BAD = [
    b"x",
    b"x" * 7,
    message(0),
    message(-1, -1),
    message(2**31 - 1, -(2**31)),
    message(Msg.RESIZE, -1),
    message(Msg.RESIZE, 2**31 - 1),
    message(Msg.KILL, -5),
    message(Msg.KILL, 64000),
    message(Msg.KILL, 0),
    message(Msg.ATTACH, -1),
    message(Msg.ATTACH, 2**31 - 1),
    message(Msg.STDIN, 0, b"x" * MSG_MAX),
    message(Msg.STDIN, 0, b"x" * (MSG_MAX + 4000)),
    message(Msg.STDIN, 0),
    message(Msg.POLICY, 0),
    message(Msg.POLICY, 0, b"x"),
    message(Msg.POLICY, 0, struct.pack("ii", 77, -77)),
    message(Msg.WATCH, -9),
    message(Msg.STDOUT, 0, b"x" * 100),
    message(Msg.EXITED, 0, b"x" * 1000),
    message(Msg.ENDED, 0),
    message(Msg.TERMINAL, 3),
]


@pytest.mark.parametrize("tty", [False, True])
def test_malformed_messages(start: Start, busybox: cl.Image, connect: Any, tty: bool) -> None:
    """
    Messages that are cut, too long, unknown or out of range change nothing:
    the container runs on and can be used and stopped.
    """
    container = start(stdin_open=True, tty=tty)
    for data in BAD:
        connection = connect(container)
        with contextlib.suppress(OSError):
            connection.send(data)
            connection.send(data)
        connection.close()

    assert "ok\n" == container.exec(["echo", "ok"]).stdout
    assert "running" == container.status
    container.stop(timeout=0)
    assert "exited" == container.status


def test_a_flood_of_messages_and_connections(start: Start, busybox: cl.Image, connect: Any) -> None:
    """
    Hundreds of connections and thousands of messages whose answers nobody
    reads neither stop nor feed the monitor.
    """
    container = start(stdin_open=True)
    connections = [connect(container) for _ in range(20)]
    for connection in connections:
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(2000):
                connection.send(message(Msg.RESIZE, 1))
                connection.send(message(Msg.WATCH, 1))
    more = []
    for _ in range(200):
        with contextlib.suppress(OSError):
            more.append(connect(container))
    for connection in connections + more:
        connection.close()

    assert "ok\n" == container.exec(["echo", "ok"]).stdout
    container.stop(timeout=0)
    assert "exited" == container.status


def test_descriptors_that_are_sent(start: Start, busybox: cl.Image, connect: Any) -> None:
    """
    Descriptors that ride along are not taken.
    """
    container = start()
    reader, writer = os.pipe()
    connection = connect(container)
    connection.sendmsg(
        [message(Msg.WATCH, 1)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))]
    )
    connection.recv(100)
    os.close(writer)
    try:
        # End of file: nobody else has the other end.
        assert b"" == os.read(reader, 1)
    finally:
        os.close(reader)


def test_a_client_that_never_reads(start: Start, busybox: cl.Image, connect: Any) -> None:
    """
    An attached client that reads nothing holds up the container's output, not
    its monitor: others are answered, and when it leaves all goes on.
    """
    container = start(
        command=[
            "sh",
            "-c",
            (
                "read x; i=0; while [ $i -lt 3000 ]; "
                "do echo $i 0123456789012345678901234567890123456789012345678901234567890123456789; "
                "i=$((i+1)); done; echo done; sleep 1000"
            ),
        ],
        stdin_open=True,
    )
    lazy = connect(container)
    lazy.send(message(Msg.ATTACH, 7))
    lazy.send(message(Msg.STDIN, 0, b"\n"))

    assert "ok\n" == container.exec(["echo", "ok"]).stdout
    other = connect(container)
    other.send(message(Msg.WATCH, 0))
    answers = set()
    while Msg.ACK not in answers:
        answers.add(struct.unpack("ii", other.recv(MSG_MAX)[:8])[0])
    lazy.close()
    container.wait_until(log="done", timeout=30)
    container.stop(timeout=0)


def test_the_first_process_is_signalled_not_its_number(start: Start, busybox: cl.Image) -> None:
    """
    After the end there is no number left to signal: kill is a conflict, never
    a signal to who has the number now.
    """
    container = start()
    pid = container.pid
    container.kill()
    container.wait(20)

    assert pid is not None
    with pytest.raises(cl.Conflict):
        container.kill(signal.SIGTERM)


# ---- what an image says ---------------------------------------------------------------------


def test_labels_are_only_data(run: Run, hostile: Hostile, start: Start) -> None:
    """
    Labels of an image set no option (CVE-2026-53488, CVE-2026-53492).
    """
    names = (
        "privileged",
        "cap_add",
        "security_opt",
        "network",
        "pid",
        "volumes",
        "devices",
        "run",
        "io.containerlib.privileged",
        "io.podman.annotations.privileged",
        "io.podman.annotations.seccomp",
        "io.kubernetes.cri.container-type",
        "org.systemd.property.DeviceAllow",
        "run.oci.keep_original_groups",
        "org.criu.config",
        "io.containers.trace-syscall",
    )
    labels = dict.fromkeys(names, "true")
    config = {"Labels": labels}
    command = [
        "sh",
        "-c",
        "grep -E 'Cap|Seccomp:|NoNew' /proc/self/status; cut -d' ' -f5 /proc/self/mountinfo; ls /dev",
    ]
    plain, labelled = hostile(name="plain"), hostile(name="labelled", config=config)

    assert run(plain, command).stdout == run(labelled, command).stdout
    container = start(labelled)
    assert labels == dict(container.labels)
    assert (False, (), ()) == (container.config.privileged, container.config.cap_add, container.config.mounts)


def test_the_image_s_environment_is_only_for_inside(run: Run, hostile: Hostile, tmp_path: Path) -> None:
    """
    Variables of the image that would move a loader or Python reach the
    container only, not what starts it.
    """
    made = tmp_path / "made"
    config = {
        "Env": [
            f"LD_PRELOAD={tmp_path}/evil.so",
            f"PYTHONSTARTUP={made}",
            "MALLOC_CHECK_=3",
            f"CONTAINERLIB_ROOT={made}",
        ]
    }
    image = hostile(config=config)

    assert "ok\n" == run(image, ["echo", "ok"]).stdout
    assert not made.exists()
    assert "CONTAINERLIB_ROOT" not in {key for key, value in os.environ.items() if value == str(made)}
