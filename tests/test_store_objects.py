# SPDX-License-Identifier: Apache-2.0
"""
Objects of the store: made, named, found, locked, removed, swept.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from containerlib.errors import Conflict, ContainerNotFound, CorruptState, InvalidOption
from containerlib.store import Objects, Store, makers

ID = "a" * 64
OTHER = "b" * 64


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "root", tmp_path / "run")
    yield store
    store.close()


@pytest.fixture(name="objects")
def _objects(store: Store) -> Objects:
    return store.containers


def _entries(objects: Objects) -> list[str]:
    """
    Everything below the collection, whatever its name.
    """
    top = objects.path("")
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.name != "by-name")


def test_create_makes_files_and_directories(objects: Objects) -> None:
    """
    An object has the files and directories that it was made with.
    """
    path = objects.create(
        ID, name="web", files={"config.json": b"{}"}, directories=["upper", ("work", 0o700)]
    )

    assert objects.path(ID) == path
    assert b"{}" == objects.read(ID, "config.json")
    assert ["config.json", "name", "upper", "work"] == sorted(os.listdir(path))


def test_modes_do_not_depend_on_the_umask(objects: Objects) -> None:
    """
    Directories and files have their modes whatever the umask.
    """
    modes = []
    for umask, id in ((0, ID), (0o077, OTHER)):
        old = os.umask(umask)
        try:
            path = objects.create(id, files={"hosts": b""}, directories=["upper", ("tmp", 0o1777)])
        finally:
            os.umask(old)
        modes.append([(path / name).lstat().st_mode & 0o7777 for name in ("", "hosts", "upper", "tmp")])

    assert [[0o700, 0o644, 0o755, 0o1777]] * 2 == modes


def test_name_taken(objects: Objects) -> None:
    """
    A second object of one name is refused, the error names the holder, and nothing is left of it.
    """
    objects.create(ID, name="web", files={})
    before = _entries(objects)

    with pytest.raises(Conflict, match=f"'web' is taken by container {ID[:12]}"):
        objects.create(OTHER, name="web", files={"config.json": b""})

    assert before == _entries(objects)


def test_id_taken(objects: Objects) -> None:
    """
    A second object of one id is refused and its name stays free.
    """
    objects.create(ID, name="web", files={"f": b"1"})

    with pytest.raises(Conflict, match="id"):
        objects.create(ID, name="other", files={"f": b"2"})

    assert b"1" == objects.read(ID, "f")
    objects.create(OTHER, name="other", files={})


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "ä", "a\0b", "x" * 201])
def test_bad_names(objects: Objects, name: str) -> None:
    """
    A name that is not Docker's kind of name is refused with that name.
    """
    with pytest.raises(InvalidOption) as caught:
        objects.create(ID, name=name, files={})

    assert name == caught.value.subject
    assert [] == objects.ids()


def test_resolve(objects: Objects) -> None:
    """
    A full id, a name and the beginning of one id all find the object.
    """
    objects.create(ID, name="web", files={})
    objects.create(OTHER, files={})

    assert [ID] * 4 == [objects.resolve(key) for key in (ID, "web", "a", "aaaa")]


def test_name_before_prefix(objects: Objects) -> None:
    """
    A name that is also the beginning of an id means the name.
    """
    objects.create(ID, files={})
    objects.create(OTHER, name="aaa", files={})

    assert OTHER == objects.resolve("aaa")


def test_ambiguous_prefix(objects: Objects) -> None:
    """
    The beginning of several ids is a Conflict.
    """
    objects.create("ab" * 32, files={})
    objects.create("ac" * 32, files={})

    with pytest.raises(Conflict, match="2 containers"):
        objects.resolve("a")


@pytest.mark.parametrize("key", ["", "nope", ".", "..", "../x", "by-name", "a/b", "\0"])
def test_unknown_keys(objects: Objects, key: str) -> None:
    """
    What names no object raises the collection's own NotFound.
    """
    objects.create(OTHER, name="web", files={})

    with pytest.raises(ContainerNotFound):
        objects.resolve(key)


def test_missing_file_is_corrupt_state(objects: Objects) -> None:
    """
    A file missing in an object that exists is CorruptState and names the file.
    """
    objects.create(ID, files={})

    with pytest.raises(CorruptState, match="config.json"):
        objects.read(ID, "config.json")
    with pytest.raises(ContainerNotFound):
        objects.read(OTHER, "config.json")


def test_replace(objects: Objects) -> None:
    """
    Replacing a file leaves the new content and no temporary file.
    """
    path = objects.create(ID, files={"config.json": b"old"})

    objects.replace(ID, "config.json", b"new")

    assert b"new" == objects.read(ID, "config.json")
    assert ["config.json"] == os.listdir(path)


def test_rename(objects: Objects) -> None:
    """
    A renamed object is found by its new name only, and the old one is free.
    """
    objects.create(ID, name="old", files={})

    objects.rename(ID, "new")

    assert ("new", ID) == (objects.name(ID), objects.resolve("new"))
    objects.create(OTHER, name="old", files={})
    assert OTHER == objects.resolve("old")


def test_rename_to_taken_name(objects: Objects) -> None:
    """
    Renaming to a name that is taken is a Conflict and changes nothing.
    """
    objects.create(ID, name="one", files={})
    objects.create(OTHER, name="two", files={})

    with pytest.raises(Conflict):
        objects.rename(ID, "two")

    assert ("one", ID, OTHER) == (objects.name(ID), objects.resolve("one"), objects.resolve("two"))


def test_rename_to_own_name(objects: Objects) -> None:
    """
    Renaming an object to the name that it has does nothing.
    """
    objects.create(ID, name="one", files={})

    objects.rename(ID, "one")

    assert ID == objects.resolve("one")


def test_remove(objects: Objects) -> None:
    """
    A removed object leaves nothing, and its name is free.
    """
    path = objects.create(ID, name="web", files={"f": b"x"}, directories=["upper", "work"])
    (path / "upper" / "a" / "b").mkdir(parents=True)
    (path / "upper" / "a" / "f").write_text("x")

    objects.remove(ID)

    assert [] == _entries(objects)
    with pytest.raises(ContainerNotFound):
        objects.remove(ID)


def test_one_removal_wins(objects: Objects) -> None:
    """
    Of several threads that remove one object, one succeeds and the others get NotFound.
    """
    objects.create(ID, name="web", files={"f": b""})
    results: list[str] = []

    def remove() -> None:
        try:
            objects.remove(ID)
            results.append("removed")
        except ContainerNotFound:
            results.append("gone")

    threads = [threading.Thread(target=remove) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["gone"] * 7 + ["removed"] == sorted(results)


def test_one_claim_wins(objects: Objects) -> None:
    """
    Of several threads that claim one name, also a stale one, exactly one gets it.
    """
    for round in range(20):
        name = f"n{round}"
        objects.names.sweep()
        if round % 2:
            os.symlink("0" * 64, objects.path("by-name") / name)
        results: list[str] = []

        def create(id: str, name: str = name, results: list[str] = results) -> None:
            try:
                objects.create(id, name=name, files={})
                results.append(id)
            except Conflict:
                pass

        threads = [threading.Thread(target=create, args=(f"{i}{round:03}",)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert results == [objects.resolve(name)]


def test_lock_waits(objects: Objects) -> None:
    """
    An object's lock keeps out others, and is free after its holder.
    """
    objects.create(ID, files={})
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with objects.lock(ID):
            order.append("second")

    with objects.lock(ID):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait(0.05)
        order.append("first")
    thread.join()

    assert ["first", "second"] == order


def test_lock_of_removed_object(objects: Objects) -> None:
    """
    Who waits for the lock of an object that gets removed learns that it is gone.
    """
    objects.create(ID, files={})
    failure: list[BaseException] = []

    def wait() -> None:
        try:
            with objects.lock(ID):
                pass
        except ContainerNotFound as error:
            failure.append(error)

    with objects.lock(ID):
        thread = threading.Thread(target=wait)
        thread.start()
        objects.remove(ID)
    thread.join()

    assert 1 == len(failure)


KILLED = """
import os, signal, sys
from pathlib import Path
from containerlib.store import Store
step = int(sys.argv[2])
store = Store(Path(sys.argv[1]) / "root", Path(sys.argv[1]) / "run")
store.containers.ids()
store.containers.names.sweep()
count = 0

def interpose(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(os, name, call)

for name in ("mkdir", "open", "write", "symlink", "rename", "unlink", "rmdir", "readlink"):
    interpose(name)
objects = store.containers
objects.create("a" * 64, name="web", files={"config.json": b"{}"}, directories=["upper"])
objects.rename("a" * 64, "db")
objects.remove("a" * 64)
print("done", count)
"""


def test_killed_at_any_step(tmp_path: Path) -> None:
    """
    After kill -9 at any step of making, renaming and removing, the next process sees the object whole
    or not at all, both names can be had, and a sweep leaves nothing.
    """
    step = 0
    while True:
        step += 1
        top = tmp_path / str(step)
        top.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(top), str(step)], capture_output=True, text=True, check=False
        )
        store = Store(top / "root", top / "run")
        objects = store.containers
        for id in objects.ids():
            assert b"{}" == objects.read(id, "config.json")
            assert objects.name(id) in ("web", "db")
            assert id == objects.resolve(objects.name(id) or "")
            objects.remove(id)
        objects.create("c" * 64, name="web", files={})
        objects.create("d" * 64, name="db", files={})
        objects.remove("c" * 64)
        objects.remove("d" * 64)
        objects.sweep()
        assert [] == _entries(objects)
        store.close()
        if done.returncode == 0:
            break
        assert -signal.SIGKILL == done.returncode, done.stderr

    assert step > 20


def test_sweep_spares_the_living(objects: Objects) -> None:
    """
    What a live process is making, or holds locked, is not swept.
    """
    objects.ids()
    mine = objects.path(makers.making(ID))
    mine.mkdir()
    dead = objects.path(f".new-{OTHER}-1-1-{'0' * 16}")
    dead.mkdir()
    locked = objects.path(f".new-{'c' * 64}-1-1-{'0' * 16}")
    locked.mkdir()
    fd = os.open(locked, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        objects.sweep()
        left = sorted(os.listdir(objects.path("")))
    finally:
        os.close(fd)

    assert sorted([mine.name, locked.name, "by-name"]) == left


def test_stale_claim_of_another_boot(objects: Objects) -> None:
    """
    A name claimed for an object that was never finished, before a reboot, can be had.
    """
    objects.create(OTHER, name="x", files={})
    (objects.path("") / f".new-{ID}-{os.getpid()}-1-{'0' * 16}").mkdir()
    os.symlink(ID, objects.path("by-name") / "web")

    objects.rename(OTHER, "web")

    assert OTHER == objects.resolve("web")


def test_makers() -> None:
    """
    This process is alive by its maker string; another start time or boot is not.
    """
    pid, start, boot = makers.identity().split("-")

    assert makers.is_alive(makers.identity())
    assert not makers.is_alive(f"{pid}-{int(start) + 1}-{boot}")
    assert not makers.is_alive(f"{pid}-{start}-{'0' * 16}")
    assert not makers.is_alive("rubbish")
    assert ("x-y", makers.identity()) == makers.split(makers.making("x-y"))


def test_zombie_is_dead() -> None:
    """
    A process that has ended counts as dead before it is reaped.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        assert None is makers.start_time(pid)
    finally:
        os.waitpid(pid, 0)


def test_no_descriptors_leak(objects: Objects) -> None:
    """
    Making, reading, locking and removing objects leaves no descriptor open.
    """
    objects.create(ID, name="web", files={"f": b"1"})
    objects.remove(ID)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(50):
        objects.create(ID, name="web", files={"f": b"1"}, directories=["upper"])
        objects.read(ID, "f")
        with objects.lock(ID):
            objects.resolve("web")
        objects.remove(ID)
        objects.sweep()

    assert before == len(os.listdir("/proc/self/fd"))


def test_survives_closing(store: Store) -> None:
    """
    A closed store opens its directories again when used.
    """
    store.containers.create(ID, files={"f": b"1"})
    store.close()

    assert b"1" == store.containers.read(ID, "f")
