# SPDX-License-Identifier: Apache-2.0
"""
Names that change between a look and a use: a process exchanges a directory or
file with a link to outside, without a pause, while containers start.

Each race runs for CONTAINERLIB_RACE_SECONDS (4) seconds, some hundreds of
starts.  A start may fail; what it may never do is make, change or show
anything outside.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import containerlib as cl
from containerlib.errors import ContainerlibError
from containerlib.types import Mount

RACE_SECONDS = float(os.environ.get("CONTAINERLIB_RACE_SECONDS", "4"))

pytestmark = pytest.mark.slow

Run = Callable[..., cl.Completed[str]]
Exchange = Callable[..., contextlib.AbstractContextManager[None]]
Hostile = Callable[..., str]


def rounds() -> Iterator[int]:
    """
    Count until the time is over.
    """
    end = time.monotonic() + RACE_SECONDS
    number = 0
    while time.monotonic() < end:
        yield number
        number += 1


def race(attempt: Callable[[int], object]) -> Counter[str]:
    """
    Try over and over; how often it worked, and how often it was refused.
    """
    results: Counter[str] = Counter()
    for number in rounds():
        try:
            attempt(number)
        except ContainerlibError as error:
            results[type(error).__name__] += 1
        else:
            results["ok"] += 1
    return results


def outward(canary: Any) -> str:
    """
    A link text that leads to the canary from wherever it stands, outside of a root.
    """
    return "../" * 20 + str(canary.path)[1:]


@pytest.fixture(name="swapped")
def _swapped(shared: Path, canary: Any) -> tuple[Path, Path]:
    """
    In the shared volume: a directory and a link to the canary, to be exchanged.
    """
    (shared / "a/inner").mkdir(parents=True)
    for path in (shared / "a", shared / "a/inner"):
        path.chmod(0o777)
    (shared / "b").symlink_to(outward(canary))
    return shared / "a", shared / "b"


def test_parents_of_a_mount_target(  # noqa: PLR0917  # fixtures
    run: Run,
    busybox: cl.Image,
    shared: Path,
    swapped: tuple[Path, Path],
    exchange: Exchange,
    canary: Any,
    tmp_path: Path,
) -> None:
    """
    A volume below a shared volume is mounted in the shared volume or not at
    all, and its mount point is made nowhere else (CVE-2021-30465,
    CVE-2024-45310).
    """
    source = tmp_path / "source"
    source.mkdir()
    (source / "marker").write_text("mounted\n", encoding="utf-8")
    outer = Mount(type="bind", source=str(shared), target="/v")

    def attempt(number: int) -> None:
        inner = Mount(type="bind", source=str(source), target=f"/v/a/new{number % 50}/deep")
        result = run(command=["cat", "/proc/self/mountinfo"], volumes=[outer, inner])
        targets = [line.split()[4] for line in result.stdout.splitlines()]
        assert all(
            target.startswith(("/v/", "/proc", "/sys", "/dev", "/etc/"))
            or target in ("/", "/v")
            or str(canary.path) in target
            for target in targets
        ), targets

    with exchange(*swapped):
        results = race(attempt)

    assert 0 < results["ok"], results
    canary.check()


def test_targets_that_are_files(  # noqa: PLR0917  # fixtures
    run: Run,
    busybox: cl.Image,
    shared: Path,
    swapped: tuple[Path, Path],
    exchange: Exchange,
    canary: Any,
    tmp_path: Path,
) -> None:
    """
    The empty file that a bind mount needs is made in the shared volume only
    (CVE-2024-45310).
    """
    source = tmp_path / "source"
    source.write_text("mounted\n", encoding="utf-8")
    outer = Mount(type="bind", source=str(shared), target="/v")

    def attempt(number: int) -> None:
        inner = Mount(type="bind", source=str(source), target=f"/v/a/file{number % 50}")
        run(command=["true"], volumes=[outer, inner])

    with exchange(*swapped):
        results = race(attempt)

    assert 0 < results["ok"], results
    canary.check()


def test_tmpfs_targets(  # noqa: PLR0917  # fixtures
    run: Run, busybox: cl.Image, shared: Path, swapped: tuple[Path, Path], exchange: Exchange, canary: Any
) -> None:
    """
    A tmpfs never lands outside of the shared volume, either.
    """
    outer = Mount(type="bind", source=str(shared), target="/v")

    def attempt(number: int) -> None:
        run(command=["true"], volumes=[outer, Mount(type="tmpfs", target=f"/v/a/new{number % 50}")])

    with exchange(*swapped):
        results = race(attempt)

    assert 0 < results["ok"], results
    canary.check()


def test_working_directories(  # noqa: PLR0917  # fixtures
    run: Run, busybox: cl.Image, shared: Path, swapped: tuple[Path, Path], exchange: Exchange, canary: Any
) -> None:
    """
    The working directory is entered, and made, inside only (CVE-2024-21626).
    """

    def attempt(number: int) -> None:
        result = run(
            command=["ls", "-la", "."], volumes={shared: "/v"}, working_dir=f"/v/a/work{number % 50}"
        )
        assert "secret" not in result.stdout

    with exchange(*swapped):
        results = race(attempt)

    assert 0 < results["ok"], results
    canary.check()


def test_working_directories_of_exec(  # noqa: PLR0917  # fixtures
    start: Callable[..., cl.Container],
    busybox: cl.Image,
    shared: Path,
    swapped: tuple[Path, Path],
    exchange: Exchange,
    canary: Any,
) -> None:
    """
    The same for exec, where the container itself could be who exchanges.
    """
    container = start(volumes={shared: "/v"})

    def attempt(number: int) -> None:
        result = container.exec(["ls", "-la", "."], working_dir=f"/v/a/work{number % 50}")
        assert "secret" not in result.stdout

    with exchange(*swapped):
        results = race(attempt)

    assert 0 < results["ok"], results
    canary.check()


def test_sub_paths_of_a_volume(  # noqa: PLR0917  # fixtures
    run: Run, busybox: cl.Image, shared: Path, swapped: tuple[Path, Path], exchange: Exchange, canary: Any
) -> None:
    """
    The part of a volume that is mounted is never another directory of the host
    (kubernetes CVE-2017-1002101, CVE-2021-25741).
    """
    mount = Mount(type="bind", source=str(shared), target="/x", subpath="a/inner")

    def attempt(number: int) -> None:
        assert "" == run(command=["ls", "-A", "/x"], volumes=[mount]).stdout

    with exchange(*swapped):
        results = race(attempt)

    assert 0 < results["ok"], results
    assert 0 < results["MountError"], results


def test_the_directory_of_devices(
    run: Run, engine: cl.Engine, hostile: Hostile, exchange: Exchange, canary: Any
) -> None:
    """
    A /dev that becomes a link in the middle is refused; no device, link or
    directory is ever made outside (CVE-2026-41579, CVE-2026-47766).
    """

    def change(top: Path) -> None:
        (top / "evil").symlink_to(outward(canary))

    image = hostile(change)
    layer = _layer_of(engine, image)

    with exchange(layer / "dev", layer / "evil"):
        results = race(lambda number: run(image, ["true"], tty=number % 2 == 1))

    assert 0 < results["ok"], results
    canary.check()


def test_the_directories_of_the_kernel(
    run: Run, engine: cl.Engine, hostile: Hostile, exchange: Exchange, canary: Any
) -> None:
    """
    The same for /proc: what is read there is the kernel's, or nothing
    (CVE-2019-19921).
    """

    def change(top: Path) -> None:
        (top / "tmp/self").mkdir()
        (top / "tmp/self/status").write_text("fake\n", encoding="utf-8")
        (top / "evil").symlink_to("tmp")

    image = hostile(change)
    layer = _layer_of(engine, image)

    def attempt(number: int) -> None:
        # The names may be exchanged once more after the mount: then there is
        # no /proc to find, and the container's own link shows its own file.
        found = run(image, ["cat", "/proc/self/mountinfo"], check=False).stdout
        assert not [
            line for line in found.splitlines() if " - proc " in line and line.split()[4].startswith("/tmp")
        ]

    with exchange(layer / "proc", layer / "evil"):
        results = race(attempt)

    assert 0 < results["ok"], results
    canary.check()


def _layer_of(engine: cl.Engine, image: str) -> Path:
    """
    Where the image's only layer is unpacked.
    """
    from containerlib.images import library

    record = library.find(engine.store, image)
    assert record is not None
    (layer,) = library.lower_directories(engine.store, record)
    path = Path(layer)
    if not os.access(path, os.W_OK):
        pytest.skip("the layer belongs to another id")
    return path


@pytest.mark.root
def test_the_null_device(run: Run, busybox: cl.Image, shared: Path, exchange: Exchange) -> None:
    """
    What hides is the null device, or the start fails: with a link exchanged
    for it nothing of the kernel's becomes writable (CVE-2025-31133).
    """
    os.mknod(shared / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (shared / "null").chmod(0o666)
    (shared / "evil").symlink_to("/proc/sys/kernel/core_pattern")
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii")
    program = (
        "for p in /proc/keys /proc/timer_list /proc/interrupts; "
        "do [ ! -e $p ] || [ -c $p ] || echo open $p; done; "
        "grep core_pattern /proc/self/mountinfo; true"
    )

    def attempt(number: int) -> None:
        # Not /dev/null by name: that is what is being exchanged.
        assert "" == run(command=["sh", "-c", program], volumes={shared: "/dev"}).stdout

    with exchange(shared / "null", shared / "evil"):
        results = race(attempt)

    assert 0 < results["ok"], results
    assert pattern == Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii")


def test_names_below_a_hostile_dev(  # noqa: PLR0917  # fixtures
    run: Run, busybox: cl.Image, shared: Path, exchange: Exchange, canary: Any, tmp_path: Path
) -> None:
    """
    A volume over /dev whose pts is exchanged with a link: no terminal is
    opened there and none bound outside (CVE-2025-52565).
    """
    (shared / "pts").mkdir()
    (shared / "evil").symlink_to(outward(canary))
    (shared / "pts/ptmx").write_text("", encoding="utf-8")

    with exchange(shared / "pts", shared / "evil"):
        results = race(lambda _: run(command=["true"], tty=True, volumes={shared: "/dev"}))

    assert {"ok"} & set(results) == set()
    canary.check()


@pytest.mark.root
def test_terminals_of_exec_in_a_hostile_dev(
    start: Callable[..., cl.Container], busybox: cl.Image, canary: Any
) -> None:
    """
    A privileged container that mounts over its own /dev/pts, /dev/null and
    /dev/console without a pause: exec gets a true terminal or an error, and
    its streams are never anything else.
    """
    program = (
        "mkdir -p /fake; echo fake >/fake/ptmx; mkfifo /fake/null; "
        "while :; do mount --bind /fake /dev/pts; mount --bind /fake/null /dev/null; "
        "umount /dev/null; umount /dev/pts; done"
    )
    container = start(command=["sh", "-c", program], privileged=True)

    def attempt(number: int) -> None:
        result = container.exec(
            ["sh", "-c", "test -c /proc/self/fd/0 && echo true"], tty=number % 2 == 1, timeout=20
        )
        assert "true" == result.stdout.strip()

    results = race(attempt)

    assert 0 < results["ok"], results
    canary.check()


def test_removal(
    engine: cl.Engine, start: Callable[..., cl.Container], busybox: cl.Image, exchange: Exchange, canary: Any
) -> None:
    """
    While a container is removed, a directory of its changes is exchanged with
    a link to outside: only the link goes (CVE-2024-23652).
    """
    # Of the other ids' files even the owner of the range can exchange none from outside.
    if os.geteuid() != 0:
        pytest.skip("the changes belong to other ids")
    pairs = range(60)
    program = "for i in $(seq 0 59); do mkdir -p /x/a$i/y/z; : >/x/a$i/y/file; done"
    for _ in rounds():
        container = cl.Container.create("busybox", ["sh", "-c", program], network="none", engine=engine)
        container.start()
        container.wait(20)
        upper = engine.store.containers.path(container.id) / "upper/x"
        for i in pairs:
            (upper / f"evil{i}").symlink_to(canary.path)
        fd = os.open(upper, os.O_PATH)
        try:
            base = Path(f"/proc/{os.getpid()}/fd/{fd}")
            names = [base / f"{name}{i}" for i in pairs for name in ("a", "evil")]
            # What it refuses to walk is left to the next sweep.
            with exchange(*names), contextlib.suppress(ContainerlibError):
                container.remove()
        finally:
            os.close(fd)
        canary.check()
    engine.store.sweep()
    assert [] == [name for name in os.listdir(engine.root / "containers") if name.startswith(".del")]


def test_passwd_of_a_running_container(
    start: Callable[..., cl.Container], busybox: cl.Image, canary: Any
) -> None:
    """
    A container exchanges its passwd with links, FIFOs and devices while users
    are looked up: the answer is its own file's, or an error, soon.
    """
    program = (
        "cp /etc/passwd /good; mkfifo /fifo; ln -s /proc/self/fd/0 /link; "
        "ln -s ../../../../../../etc/shadow /up; "
        "while :; do for f in /good /fifo /link /up; "
        "do ln -f $f /etc/new 2>/dev/null || cp -P $f /etc/new; mv -f /etc/new /etc/passwd; "
        "done; done"
    )
    container = start(command=["sh", "-c", program])

    def attempt(number: int) -> None:
        found = {process.user for process in container.top()}
        assert found <= {"root", "user", "0", "1000"}, found
        container.exec(["true"], user="root", timeout=20)

    results = race(attempt)

    assert 0 < results["ok"] + results["UserNotFound"], results
    assert set(results) <= {"ok", "UserNotFound"}, results


def test_ends_while_something_is_executed(start: Callable[..., cl.Container], busybox: cl.Image) -> None:
    """
    A container that ends and starts again while processes are put into it:
    each ran inside, or was refused; none ran outside.
    """
    container = cl.Container.run("busybox", ["sleep", "0.02"], network="none", restart="always", detach=True)
    host = os.stat("/proc/self/ns/mnt").st_ino

    def attempt(number: int) -> None:
        text = container.exec(["readlink", "/proc/self/ns/mnt"], check=False, timeout=20).stdout
        assert str(host) not in text

    try:
        results = race(attempt)
    finally:
        container.remove(force=True)

    assert 0 < sum(results.values())
