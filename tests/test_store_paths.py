# SPDX-License-Identifier: Apache-2.0
"""
Where state lives, and which directories are fit to hold it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from containerlib.errors import InvalidOption, NotSupported
from containerlib.store import Store, default_root, default_run_root, disk_usage


def test_root_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    CONTAINERLIB_ROOT chooses the state directory.
    """
    monkeypatch.setenv("CONTAINERLIB_ROOT", str(tmp_path))

    assert tmp_path == default_root()


@pytest.mark.root
def test_root_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Root's state is in /var/lib, whatever XDG_DATA_HOME says.
    """
    monkeypatch.delenv("CONTAINERLIB_ROOT", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/x")

    assert Path("/var/lib/containerlib") == default_root()


@pytest.mark.user
def test_root_for_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A user's state is in XDG_DATA_HOME, or where that is by default.
    """
    monkeypatch.delenv("CONTAINERLIB_ROOT", raising=False)
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_DATA_HOME", "/x")
    chosen = default_root()
    monkeypatch.setenv("XDG_DATA_HOME", "relative")

    assert (Path("/x/containerlib"), Path("/h/.local/share/containerlib")) == (chosen, default_root())


def test_run_root_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    XDG_RUNTIME_DIR holds the run root if it is this user's.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = default_run_root()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))

    assert tmp_path / "containerlib" == own
    assert tmp_path not in default_run_root().parents


@pytest.mark.user
def test_run_root_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An XDG_RUNTIME_DIR that `su` left behind is not used.
    """
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run")

    assert Path("/run") not in default_run_root().parents or str(os.getuid()) in str(default_run_root())


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    """
    A store makes no directory until it is used.
    """
    Store(tmp_path / "root", tmp_path / "run")

    assert [] == os.listdir(tmp_path)


def test_own_directories_are_narrowed(tmp_path: Path) -> None:
    """
    An empty root that others may enter becomes private, also when it was widened later.
    """
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o755)
    Store(root, tmp_path / "run").root_fd()
    first = root.stat().st_mode & 0o777
    root.chmod(0o755)
    Store(root, tmp_path / "run").root_fd()

    assert (0o700, 0o700) == (first, root.stat().st_mode & 0o777)


def test_foreign_content_is_not_narrowed(tmp_path: Path) -> None:
    """
    A directory that holds other things and is open to others is refused, and keeps its mode.
    """
    (tmp_path / "root").mkdir()
    (tmp_path / "root").chmod(0o755)
    (tmp_path / "root" / "mine").touch()

    with pytest.raises(InvalidOption, match="0755"):
        Store(tmp_path / "root", tmp_path / "run").root_fd()

    assert 0o755 == (tmp_path / "root").stat().st_mode & 0o777


def test_file_as_root(tmp_path: Path) -> None:
    """
    A file as root is refused by name.
    """
    (tmp_path / "root").touch()

    with pytest.raises(InvalidOption, match="root="):
        Store(tmp_path / "root", tmp_path / "run").containers.ids()


def test_other_format(tmp_path: Path) -> None:
    """
    A state directory of a later version is refused, and says what to use.
    """
    store = Store(tmp_path / "root", tmp_path / "run")
    store.root_fd()
    store.close()
    (tmp_path / "root" / "format").write_text("99\n")

    with pytest.raises(NotSupported, match="99"):
        Store(tmp_path / "root", tmp_path / "run").containers.ids()


def test_workspace(tmp_path: Path) -> None:
    """
    A workspace is private and gone at its end, also after an error.
    """
    store = Store(tmp_path / "root", tmp_path / "run")
    with pytest.raises(RuntimeError), store.workspace("test") as fd:  # noqa: PT012  # what is left counts
        os.mkdir("x", dir_fd=fd)
        mode = os.fstat(fd).st_mode & 0o777
        raise RuntimeError

    assert (0o700, []) == (mode, os.listdir(tmp_path / "root" / "tmp"))


def test_disk_usage(tmp_path: Path) -> None:
    """
    Disk usage is what the blocks of all files and directories add up to.
    """
    store = Store(tmp_path / "root", tmp_path / "run")
    store.containers.create("a" * 64, files={"log": b"x" * 100_000})
    os.link(store.containers.path("a" * 64) / "log", store.containers.path("a" * 64) / "log.1")
    store.blobs.write(b"y" * 50_000)
    everything = {p.lstat().st_ino: p.lstat().st_blocks * 512 for p in [store.root, *store.root.rglob("*")]}

    usage = disk_usage(store)

    assert sum(everything.values()) == usage.total
    assert usage.containers >= 100_000
    assert usage.images >= 50_000


def test_run_root_below_the_root(tmp_path: Path) -> None:
    """
    A run root below the root may be used first: the root is made private all the same.
    """
    store = Store(tmp_path / "root", tmp_path / "root" / "run")

    store.run_fd()
    store.root_fd()

    assert 0o700 == (tmp_path / "root").stat().st_mode & 0o777
