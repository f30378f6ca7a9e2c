# SPDX-License-Identifier: Apache-2.0
"""
The helper's unpack: every kind of entry, with its attributes.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containerlib import shim
from containerlib.errors import KernelError
from containerlib.images.archive import Entry
from containerlib.images.unpack import HEADER, MAGIC, Unpacker


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    path.mkdir()
    return path


@pytest.fixture(name="unpack")
def _unpack(tree: Path) -> Callable[..., None]:
    """
    Unpack entries, given as keywords of Entry and optional data.
    """

    def unpack(*entries: Entry | tuple[Entry, bytes]) -> None:
        fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with Unpacker(fd, sync=False) as unpacker:
                for item in entries:
                    entry, data = item if isinstance(item, tuple) else (item, b"")
                    unpacker.add(entry, _reader(data))
                unpacker.finish()
        finally:
            os.close(fd)

    return unpack


def _reader(data: bytes) -> Callable[[int], bytes]:
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        piece = data[position : position + size]
        position += len(piece)
        return piece

    return read


def _file(path: bytes, data: bytes = b"", **fields: object) -> tuple[Entry, bytes]:
    return Entry(kind="file", path=path, size=len(data), **fields), data  # type: ignore[arg-type]  # keywords


def _own() -> dict[str, int]:
    return {"uid": os.getuid(), "gid": os.getgid()}


@pytest.fixture(autouse=True)
def _no_children_left() -> Iterator[None]:
    """
    Every test waits for the helpers that it started.
    """
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_file(tree: Path, unpack: Callable[..., None]) -> None:
    """
    A file has its content, mode and time to the nanosecond.
    """
    unpack(_file(b"f", b"hello", mode=0o640, mtime_ns=1_234_567_890_123_456_789))
    found = (tree / "f").stat()

    assert b"hello" == (tree / "f").read_bytes()
    assert (0o640, 1_234_567_890_123_456_789) == (stat.S_IMODE(found.st_mode), found.st_mtime_ns)


def test_big_file(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Content larger than every buffer arrives whole.
    """
    data = os.urandom(5_000_001)

    unpack(_file(b"a"), _file(b"f", data), _file(b"z", b"after"))

    assert (data, b"after") == ((tree / "f").read_bytes(), (tree / "z").read_bytes())


def test_time_before_1970(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Times before 1970 are kept.
    """
    unpack(_file(b"f", mtime_ns=-1_500_000_000))

    assert -1_500_000_000 == (tree / "f").stat().st_mtime_ns


def test_modes_survive(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Set-id and sticky bits come after the owner, so chown does not clear them.
    """
    unpack(
        _file(b"suid", mode=0o4755),
        _file(b"sgid", mode=0o2755),
        Entry(kind="directory", path=b"sticky", mode=0o1777),
        _file(b"none", mode=0),
    )

    assert [0o4755, 0o2755, 0o1777, 0] == [
        stat.S_IMODE((tree / name).stat().st_mode) for name in ("suid", "sgid", "sticky", "none")
    ]


def test_modes_do_not_depend_on_the_umask(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Modes are those of the entries whatever the umask of the caller.
    """
    old = os.umask(0o077)
    try:
        unpack(
            _file(b"f", mode=0o666),
            Entry(kind="directory", path=b"d", mode=0o777),
            Entry(kind="fifo", path=b"p", mode=0o622),
        )
    finally:
        os.umask(old)

    assert [0o666, 0o777, 0o622] == [stat.S_IMODE((tree / name).lstat().st_mode) for name in "fdp"]


def test_read_only_directory(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Entries below a directory that nobody may write to are made, its mode and time come last.
    """
    unpack(
        Entry(kind="directory", path=b"d", mode=0o555, mtime_ns=10**18),
        Entry(kind="directory", path=b"d/e", mode=0o500, mtime_ns=2 * 10**18),
        _file(b"d/e/f", b"x"),
    )
    modes = [(stat.S_IMODE(p.stat().st_mode), p.stat().st_mtime_ns) for p in (tree / "d", tree / "d/e")]
    (tree / "d").chmod(0o755)
    (tree / "d/e").chmod(0o755)

    assert [(0o555, 10**18), (0o500, 2 * 10**18)] == modes


def test_root_entry(tree: Path, unpack: Callable[..., None]) -> None:
    """
    The entry for the root itself changes the root's attributes.
    """
    unpack(Entry(kind="directory", path=b"", mode=0o711, mtime_ns=10**18), _file(b"f"))

    assert (0o711, 10**18) == (stat.S_IMODE(tree.stat().st_mode), tree.stat().st_mtime_ns)


def test_links(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Symbolic links keep text and time, hard links share an inode.
    """
    unpack(
        _file(b"d/f", b"x"),
        Entry(kind="symlink", path=b"s", link=b"/not/there", mtime_ns=10**18),
        Entry(kind="hardlink", path=b"h", link=b"d/f"),
        Entry(kind="hardlink", path=b"t", link=b"s"),
    )

    assert ("/not/there", 10**18) == (os.readlink(tree / "s"), (tree / "s").lstat().st_mtime_ns)
    assert (tree / "h").stat().st_ino == (tree / "d/f").stat().st_ino
    assert "/not/there" == os.readlink(tree / "t")


def test_hard_link_to_itself(tree: Path, unpack: Callable[..., None]) -> None:
    """
    A hard link to its own name leaves the file as it is.
    """
    unpack(_file(b"f", b"x"), Entry(kind="hardlink", path=b"f", link=b"f"))

    assert b"x" == (tree / "f").read_bytes()


def test_hard_link_to_nothing(unpack: Callable[..., None]) -> None:
    """
    A hard link whose target is not there is an error that names both.
    """
    with pytest.raises(KernelError, match="link h to missing"):
        unpack(Entry(kind="hardlink", path=b"h", link=b"missing"))


def test_hard_link_to_directory(unpack: Callable[..., None]) -> None:
    """
    A hard link to a directory is refused.
    """
    with pytest.raises(KernelError):
        unpack(Entry(kind="directory", path=b"d"), Entry(kind="hardlink", path=b"h", link=b"d"))


def test_fifo(tree: Path, unpack: Callable[..., None]) -> None:
    """
    A fifo is made and not opened.
    """
    unpack(Entry(kind="fifo", path=b"p", mode=0o600))

    assert stat.S_ISFIFO((tree / "p").lstat().st_mode)


@pytest.mark.root
def test_devices_and_owners(tree: Path, unpack: Callable[..., None]) -> None:
    """
    As root owners are kept and devices made with their numbers.
    """
    unpack(
        Entry(kind="char", path=b"null", major=1, minor=3, mode=0o666, uid=1, gid=2),
        Entry(kind="block", path=b"loop", major=7, minor=300, mode=0o660),
        _file(b"f", uid=70_000, gid=4_000_000_000),
        Entry(kind="symlink", path=b"s", link=b"x", uid=5, gid=6),
    )
    null, loop = (tree / "null").lstat(), (tree / "loop").lstat()

    assert (os.makedev(1, 3), os.makedev(7, 300)) == (null.st_rdev, loop.st_rdev)
    assert (1, 2) == (null.st_uid, null.st_gid)
    assert (70_000, 4_000_000_000) == ((tree / "f").stat().st_uid, (tree / "f").stat().st_gid)
    assert (5, 6) == ((tree / "s").lstat().st_uid, (tree / "s").lstat().st_gid)


@pytest.mark.user
def test_one_owner(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Without a range of ids everything belongs to the user, and devices are left out.
    """
    unpack(_file(b"f", uid=0, gid=0), Entry(kind="char", path=b"null", major=1, minor=3))

    assert (["f"], os.getuid()) == (os.listdir(tree), (tree / "f").stat().st_uid)


def test_whiteout_look_alike(tree: Path, unpack: Callable[..., None]) -> None:
    """
    A device 0:0, which overlayfs takes for a whiteout, is left out.
    """
    unpack(Entry(kind="char", path=b"w", major=0, minor=0))

    assert [] == os.listdir(tree)


def test_xattrs(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Extended attributes come to files and directories.
    """
    try:
        os.setxattr(tree, "user.probe", b"1")
    except OSError:
        pytest.skip("this file system has no user.* attributes")
    unpack(
        _file(b"f", mode=0o444, xattrs={b"user.a": b"\0bin\xff", b"user.empty": b""}),
        Entry(kind="directory", path=b"d", xattrs={b"user.b": b"x"}),
    )

    assert b"\0bin\xff" == os.getxattr(tree / "f", "user.a")
    assert (b"", b"x") == (os.getxattr(tree / "f", "user.empty"), os.getxattr(tree / "d", "user.b"))


@pytest.mark.root
def test_file_capabilities(tree: Path, unpack: Callable[..., None]) -> None:
    """
    File capabilities survive the change of owner.
    """
    value = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    unpack(_file(b"f", uid=1, xattrs={b"security.capability": value}))

    assert value == os.getxattr(tree / "f", "security.capability")


def test_sparse(tree: Path, unpack: Callable[..., None]) -> None:
    """
    A sparse file has its size and content, and takes no room for its holes.
    """
    entry = Entry(kind="file", path=b"s", size=1 << 40, segments=[(4096, 3), (1 << 39, 2), (1 << 40, 0)])
    unpack((entry, b"abcde"))
    found = (tree / "s").stat()
    with (tree / "s").open("rb") as file:
        pieces = []
        for offset, size in ((0, 1), (4096, 3), (1 << 39, 2)):
            file.seek(offset)
            pieces.append(file.read(size))

    assert (1 << 40, [b"\0", b"abc", b"de"]) == (found.st_size, pieces)
    assert found.st_blocks < 1000


@pytest.mark.parametrize("first", ["file", "directory", "symlink", "fifo", "tree"])
@pytest.mark.parametrize("second", ["file", "directory", "symlink", "fifo", "hardlink"])
def test_later_entry_replaces(tree: Path, unpack: Callable[..., None], first: str, second: str) -> None:
    """
    The last of several entries of one name wins, whatever their kinds.
    """
    (tree.parent / "canary").mkdir()
    (tree.parent / "canary" / "file").write_text("alive")
    entries: dict[str, list[Entry | tuple[Entry, bytes]]] = {
        "file": [_file(b"x", b"content")],
        "directory": [Entry(kind="directory", path=b"x")],
        "symlink": [Entry(kind="symlink", path=b"x", link=b"../canary")],
        "fifo": [Entry(kind="fifo", path=b"x")],
        "tree": [Entry(kind="directory", path=b"x", mode=0o500), _file(b"x/a/b/c")],
        "hardlink": [_file(b"target", b"t"), Entry(kind="hardlink", path=b"x", link=b"target")],
    }

    unpack(*entries[first], *entries[second])
    mode = (tree / "x").lstat().st_mode
    checks = {
        "file": stat.S_ISREG,
        "hardlink": stat.S_ISREG,
        "directory": stat.S_ISDIR,
        "symlink": stat.S_ISLNK,
        "fifo": stat.S_ISFIFO,
    }

    assert checks[second](mode)
    assert "alive" == (tree.parent / "canary" / "file").read_text()


def test_replacing_does_not_write_through_hard_links(tree: Path, unpack: Callable[..., None]) -> None:
    """
    A later entry for one name of a file leaves its other names alone.
    """
    unpack(_file(b"a", b"one"), Entry(kind="hardlink", path=b"b", link=b"a"), _file(b"a", b"two"))

    assert (b"two", b"one") == ((tree / "a").read_bytes(), (tree / "b").read_bytes())


def test_link_inside_is_followed(tree: Path, unpack: Callable[..., None]) -> None:
    """
    A directory link that stays inside, also an absolute one, may lead to a parent.
    """
    unpack(
        Entry(kind="directory", path=b"usr/lib"),
        Entry(kind="symlink", path=b"lib", link=b"usr/lib"),
        Entry(kind="symlink", path=b"lib2", link=b"/usr/lib"),
        _file(b"lib/a"),
        _file(b"lib2/b"),
        Entry(kind="hardlink", path=b"lib2/c", link=b"lib/a"),
    )

    assert ["a", "b", "c"] == sorted(os.listdir(tree / "usr/lib"))


def test_missing_parents(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Parents that no entry made are made with mode 0755.
    """
    unpack(_file(b"a/b/c/f"))

    assert [0o755] * 3 == [stat.S_IMODE((tree / p).stat().st_mode) for p in ("a", "a/b", "a/b/c")]


def test_odd_names(tree: Path, unpack: Callable[..., None]) -> None:
    """
    Names are bytes: anything but a slash and NUL.
    """
    names = [b"\xff\xfe", b"new\nline", b" ", b"-rf", b"*", b"..x", b"...", b"\\", b"n" * 255]
    unpack(*[_file(name) for name in names])

    assert sorted(names) == sorted(os.listdir(os.fsencode(tree)))


def test_name_too_long(unpack: Callable[..., None]) -> None:
    """
    A name that the file system cannot hold is an error, not a shorter name.
    """
    with pytest.raises(KernelError):
        unpack(_file(b"n" * 256))


def test_cut_stream(tree: Path) -> None:
    """
    A stream that ends without its end mark, as after kill -9 of its writer, is an error.
    """
    status, message = _send(tree, b"")

    assert (1, "the stream was cut off") == (status, message)


HEAD = [MAGIC, 1, 0, 0o644, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"x" * 64, "record without its mark"),
        (HEADER(*[MAGIC, 99, *HEAD[2:]]) + b"f\0\0", "entry type"),
        (HEADER(*[*HEAD[:11], 0, 1, 0, 0]) + b"\0", "record of"),
        (HEADER(*[*HEAD[:11], 2, 0, 0, 0]) + b"f\0", "record of"),
        (HEADER(*[*HEAD[:11], 1 << 31, 1, 0, 0]), "record of"),
        (HEADER(*[*HEAD[:11], 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0]), "record of"),
        (HEADER(*[*HEAD[:11], 3, 1, 0, 0]) + b"f\0g\0", "path with a NUL"),
        (HEADER(*HEAD) + b"fg\0", "path with a NUL"),
        (HEADER(*[*HEAD[:2], 1, *HEAD[3:13], 4, 0]) + b"f\0\0" + b"abcd", "attributes of f"),
        (
            HEADER(*[*HEAD[:2], 1, *HEAD[3:13], 10, 0]) + b"f\0\0" + struct.pack("=II", 9, 9) + b"a\0",
            "attributes of f",
        ),
        (HEADER(*[*HEAD[:10], 1 << 63, 2, 1, 0, 0]) + b"f\0\0", "write f"),
        (HEADER(*[*HEAD[:10], 10, 2, 1, 0, 1]) + b"f\0\0" + struct.pack("=QQ", 1 << 63, 1), "write f"),
        (HEADER(*[*HEAD[:10], 10, 2, 1, 0, 1]) + b"f\0\0" + struct.pack("=QQ", 8, 3) + b"abc", "segment"),
        (HEADER(MAGIC, 6, *HEAD[2:]) + b"f\0\0", "device 0:0"),
    ],
)
def test_malformed_streams(tree: Path, stream: bytes, message: str) -> None:
    """
    A stream that Python would not write ends in an error, never in a wild read.
    """
    status, found = _send(tree, stream)

    assert 1 == status
    assert message in found


@pytest.mark.parametrize("path", [b"..", b"../x", b"a/../../x", b"/x", b"a//b", b"a/", b"./a", b"a/.", b"."])
@pytest.mark.parametrize("kind", [1, 2, 3, 5])
def test_helper_refuses_unclean_paths(tree: Path, path: bytes, kind: int) -> None:
    """
    The helper does not rely on Python to clean paths.
    """
    head = HEADER(*[MAGIC, kind, *HEAD[2:11], len(path) + 1, 2, 0, 0])
    status, message = _send(tree, head + path + b"\0l\0")

    assert (1, f"refuse the path {path.decode()}") == (status, message)
    assert (["tree"], []) == (os.listdir(tree.parent), os.listdir(tree))


def _send(tree: Path, stream: bytes) -> tuple[int, str]:
    """
    Give a raw stream to the helper; its status and message.
    """
    reader, writer = os.pipe()
    errors, error_writer = os.pipe()
    fd = os.open(tree, os.O_RDONLY)
    child = shim.spawn(["containerlib-init", "unpack"], fds=[-1, -1, -1, reader, fd, error_writer])
    for unused in (reader, error_writer, fd):
        os.close(unused)
    try:
        os.write(writer, stream)
    except BrokenPipeError:
        pass
    os.close(writer)
    record = os.read(errors, 4096)
    os.close(errors)
    return child.wait(), shim.decode_error(record).message if record else ""
