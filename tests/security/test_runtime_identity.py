# SPDX-License-Identifier: Apache-2.0
"""
Users and groups: what is written is what is meant, and the image's passwd is
only data.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import containerlib as cl
from containerlib.errors import ContainerlibError, InvalidOption, UserNotFound
from containerlib.runtime import launch
from containerlib.types import Mount

Run = Callable[..., cl.Completed[str]]
Start = Callable[..., cl.Container]
Hostile = Callable[..., str]

IDS = ["sh", "-c", "grep -E '^[UG]id' /proc/self/status"]


@pytest.fixture(autouse=True)
def _many_ids(lane: str) -> None:
    if lane == "single-id":
        pytest.skip("one id only")


def ids(text: str) -> tuple[int, int]:
    """
    The four equal uids and gids of a status file.
    """
    rows = [{int(word) for word in line.split()[1:]} for line in text.splitlines()]
    assert [1, 1] == [len(row) for row in rows]
    return rows[0].pop(), rows[1].pop()


USERS: list[tuple[str | int, tuple[int, int] | None]] = [
    ("0", (0, 0)),
    ("1", (1, 1)),
    (1, (1, 1)),
    ("1:", (1, 1)),
    ("1:2", (1, 2)),
    (":2", (0, 2)),
    ("007", (7, 0)),
    ("0001000", (1000, 1000)),
    ("12345", (12345, 0)),
    ("user", (1000, 1000)),
    ("user:", (1000, 1000)),
    ("user:staff", (1000, 50)),
    ("user:7", (1000, 7)),
    ("7:staff", (7, 50)),
    ("4294967295", None),
    ("4294967296", None),
    ("4294967297", None),
    ("18446744073709551616", None),
    ("18446744073709551617:1", None),
    ("99999999999999999999999999", None),
    ("1:4294967296", None),
    ("-1", None),
    (-1, None),
    ("1:-1", None),
    ("+1", None),
    (" 1", None),
    ("1 ", None),
    ("0x1", None),
    ("1e0", None),
    ("1.0", None),
    ("١", None),  # a digit to str.isdigit
    ("user:nobody-s-group", None),
    ("no-such-user", None),
    (":", None),
    ("1:2:3", None),
    ("root\n", None),
    ("root\0", None),
    ("../root", None),
    ("", (0, 0)),
]


@pytest.mark.parametrize(("user", "expected"), USERS, ids=[repr(user) for user, _ in USERS])
def test_user_strings(
    run: Run, start: Start, busybox: cl.Image, user: str | int, expected: tuple[int, int] | None
) -> None:
    """
    Each way to write a user means that user in run and in exec, or is refused;
    none falls back to root (CVE-2026-30892, CVE-2024-40635).
    """
    container = start()
    if expected is None:
        with pytest.raises((InvalidOption, UserNotFound)):
            run(command=IDS, user=user)
        with pytest.raises((InvalidOption, UserNotFound)):
            container.exec(IDS, user=user)
        return

    assert expected == ids(run(command=IDS, user=user).stdout)
    assert expected == ids(container.exec(IDS, user=user).stdout)


@pytest.mark.parametrize(
    "user",
    [
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1:4294967296",
        "-1",
        "no-such",
        "1:no-such",
        ":no-such",
        "1:2:3",
    ],
)
def test_the_helper_parses_as_strictly(
    run: Run, busybox: cl.Image, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    """
    What Python would not pass on, the helper refuses by itself.
    """
    original = launch.add_process

    def add(plan: Any, *args: Any, **options: Any) -> None:
        original(plan, *args, **options | {"user": user})

    monkeypatch.setattr(launch, "add_process", add)

    with pytest.raises(ContainerlibError, match="user|group"):
        run(command=["id"])


def add_line(file: str, *lines: str) -> Callable[[Path], None]:
    """
    A change of a root file system: these come first in *file*.
    """

    def change(top: Path) -> None:
        path = top / file
        path.write_text(
            "".join(f"{line}\n" for line in lines) + path.read_text(encoding="utf-8"), encoding="utf-8"
        )

    return change


def test_a_name_that_looks_like_a_number(run: Run, hostile: Hostile) -> None:
    """
    A number is never looked up as a name, though passwd and group have such
    names for root (CVE-2026-46680).
    """

    def change(top: Path) -> None:
        add_line("etc/passwd", "1000:x:0:0::/:/bin/sh", "12345:x:0:0::/:/bin/sh")(top)
        add_line("etc/group", "1000:x:0:", "777:x:0:")(top)

    image = hostile(change)

    assert (1000, 1000) == ids(run(image, IDS, user="1000").stdout)
    assert (12345, 777) == ids(run(image, IDS, user="12345:777").stdout)
    assert {"1000", "777"} <= set(run(image, ["id", "-G"], user="1000", group_add=["777"]).stdout.split())
    assert "0" not in run(image, ["id", "-G"], user="1000", group_add=["777"]).stdout.split()


@pytest.mark.parametrize(
    "line",
    [
        "evil:x:4294967296:4294967296::/:/bin/sh",
        "evil:x:-1:0::/:/bin/sh",
        "evil:x::0::/:/bin/sh",
        "evil:x:0x0:0::/:/bin/sh",
        "evil:x:18446744073709551616:1::/:/bin/sh",
        "evil:x:4294967295:4294967295::/:/bin/sh",
        "evil",
        "evil:::::::::",
    ],
)
def test_entries_that_wrap_around(run: Run, hostile: Hostile, line: str) -> None:
    """
    An entry whose id is no id is none: nobody becomes root by it.
    """
    image = hostile(add_line("etc/passwd", line))

    with pytest.raises(UserNotFound):
        run(image, IDS, user="evil")


def test_a_line_that_never_ends(run: Run, hostile: Hostile) -> None:
    """
    A line longer than any buffer is left out, and what follows it is no line
    of its own.
    """
    image = hostile(
        add_line("etc/passwd", "x" * 65534 + "evil:x:0:0::/:/bin/sh", "y" * 200000, "good:x:5:6::/:/bin/sh")
    )

    assert (5, 6) == ids(run(image, IDS, user="good").stdout)
    with pytest.raises(UserNotFound):
        run(image, IDS, user="evil")


def test_the_primary_group_is_a_supplementary_one(run: Run, start: Start, busybox: cl.Image) -> None:
    """
    A file that denies its group is denied to who has it as the primary group
    (CVE-2022-36109, CVE-2023-25173, CVE-2022-2989).
    """
    groups = ["grep", "^Groups", "/proc/self/status"]
    container = start()
    container.exec(["sh", "-c", "echo secret >/denied; chown 0:1000 /denied; chmod 604 /denied"])

    assert "1000" in run(command=groups, user="user").stdout.split()
    assert "1000" in container.exec(groups, user="user").stdout.split()
    assert "9999" in container.exec(groups, user="5:9999").stdout.split()
    result = container.exec(["sh", "-c", "newgrp 2>/dev/null; cat /denied"], user="user", check=False)
    assert (1, "") == (result.exit_code, result.stdout)


# ---- passwd as a trap -------------------------------------------------------------


def trap(kind: str, canary: Path) -> Callable[[Path], None]:
    """
    A change of a root file system: its passwd and group are traps.
    """

    def change(top: Path) -> None:
        for name in ("passwd", "group"):
            path = top / "etc" / name
            path.unlink()
            if kind == "link to the host":
                path.symlink_to("../" * 20 + str(canary / name)[1:])
            elif kind == "absolute link":
                path.symlink_to(canary / name)
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "directory":
                path.mkdir()
            elif kind == "link to itself":
                path.symlink_to(name)
            elif kind == "link to memory":
                path.symlink_to("/proc/self/mem")
            elif kind == "link to a descriptor":
                path.symlink_to("/proc/self/fd/0")
            elif kind == "link to zero":
                path.symlink_to("/dev/zero")
            else:
                with open(path, "wb") as file:
                    file.truncate(10 << 30)

    return change


KINDS = [
    "link to the host",
    "absolute link",
    "fifo",
    "directory",
    "link to itself",
    "link to memory",
    "link to a descriptor",
    "link to zero",
]


@pytest.mark.parametrize("kind", KINDS)
def test_passwd_as_a_trap(run: Run, start: Start, hostile: Hostile, tmp_path: Path, kind: str) -> None:
    """
    A passwd file that is anything but a regular file in the root counts as
    none: nobody waits for it, and nothing of the host is read
    (CVE-2024-9341, CVE-2024-9676).
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_text("evil:x:0:0::/:/bin/sh\n", encoding="utf-8")
    (outside / "group").write_text("evil:x:0:\n", encoding="utf-8")
    image = hostile(trap(kind, outside))

    with pytest.raises(UserNotFound):
        run(image, IDS, user="evil", timeout=20)
    assert (5, 0) == ids(run(image, IDS, user="5", timeout=20).stdout)
    container = start(image)
    with pytest.raises(UserNotFound):
        container.exec(IDS, user="evil", timeout=20)
    assert ["0"] == [process.user for process in container.top()]


def test_a_huge_passwd(start: Start, busybox: cl.Image) -> None:
    """
    10 GB of holes cost neither time nor memory (CVE-2024-9676).
    """
    container = start()
    container.exec(["truncate", "-s", "10G", "/etc/passwd"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()

    with pytest.raises(UserNotFound):
        container.exec(IDS, user="evil")
    assert ["root"] == [process.user for process in container.top()]

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    assert time.monotonic() - began < 20


def test_passwd_made_a_trap_while_it_runs(start: Start, busybox: cl.Image, shared: Path) -> None:
    """
    The same when the container lays the trap itself, with a device, too.
    """
    container = start()
    for make in (
        "mkfifo /etc/passwd",
        "ln -s /proc/1/fd/0 /etc/passwd",
        "mkdir /etc/passwd",
        "mknod /etc/passwd c 1 5 || mkfifo /etc/passwd",
    ):
        container.exec(["sh", "-c", f"rm -rf /etc/passwd; {make}"])
        with pytest.raises(UserNotFound):
            container.exec(IDS, user="user", timeout=20)
        assert ["0"] == [process.user for process in container.top()]


# ---- nothing of the container's is executed outside ---------------------------------


def test_no_program_of_the_image_runs_unasked(run: Run, start: Start, hostile: Hostile, shared: Path) -> None:
    """
    Starting, looking up users, listing processes, measuring, reading logs and
    stopping execute nothing of the image's: not its ps, xz, id, getent or
    shell (CVE-2019-14271, CVE-2022-1227).
    """

    def change(top: Path) -> None:
        shutil.copy(top / "bin/busybox", top / "bin/sleeper")
        (top / "bin/true").unlink()
        (top / "bin/sleep").unlink()
        (top / "bin/sleep").symlink_to("sleeper")
        for name in (
            "ps",
            "top",
            "xz",
            "unpigz",
            "gzip",
            "id",
            "getent",
            "newuidmap",
            "mount",
            "cat",
            "ls",
            "tar",
            "modprobe",
        ):
            for directory in ("bin", "usr/bin", "sbin", "usr/local/bin"):
                path = top / directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.write_text(f"#!/bin/sh\n: >/shared/{name}\n", encoding="utf-8")
                path.chmod(0o755)

    image = hostile(change)
    container = start(
        image, ["sleep", "1000"], user="user:staff", group_add=["audio"], volumes={shared: "/shared"}
    )
    container.exec(["test", "x"], user="user")
    container.top()
    container.stats()
    container.logs()
    container.inspect()
    container.stop(timeout=0)

    assert [] == os.listdir(shared)
    # The trap itself works.
    run(image, ["ps"], volumes={shared: "/shared"})
    assert ["ps"] == os.listdir(shared)


@pytest.mark.parametrize("name", ["libnss_files.so.2", "ld.so.preload"])
def test_no_library_of_the_image_is_loaded(start: Start, hostile: Hostile, shared: Path, name: str) -> None:
    """
    Names are looked up without the container's name service libraries: they
    are not even opened (CVE-2019-14271).
    """
    libraries = shared / "lib"
    libraries.mkdir()
    for library in (name, "libnss_compat.so.2", "libc.so.6", "libnss_systemd.so.2"):
        (libraries / library).write_bytes(b"not a library")
        os.utime(libraries / library, (0, 0))
    image = hostile()
    places = ["/lib/x86_64-linux-gnu", "/usr/lib", "/lib64"]
    mounts = [Mount(type="bind", source=str(libraries), target=place) for place in places]
    container = start(image, user="user:staff", volumes=mounts)
    container.exec(["true"], user="user:staff")
    container.top()

    # Access times move when a file with an older one is read (relatime).
    assert [0.0] == sorted({os.stat(libraries / library).st_atime for library in os.listdir(libraries)})
    container.exec(["cat", f"/usr/lib/{name}"])
    assert 0 < os.stat(libraries / name).st_atime
