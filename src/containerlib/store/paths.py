# SPDX-License-Identifier: Apache-2.0
"""
Where state lives by default, and what makes a directory fit to hold it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from containerlib.errors import InvalidOption

FORMAT_FILE = "format"
"""
Marks a state directory as containerlib's own; holds the format's number.
"""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def default_root() -> Path:
    """
    Return the state directory for this user, which need not exist.
    """
    if chosen := os.environ.get("CONTAINERLIB_ROOT"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/containerlib")
    base = os.environ.get("XDG_DATA_HOME") or ""
    if not base.startswith("/"):
        base = os.path.expanduser("~/.local/share")
    return Path(base) / "containerlib"


def default_run_root() -> Path:
    """
    Return the directory for what ends with the boot, which need not exist.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or ""
    uid = os.geteuid()
    if base.startswith("/") and _is_owned(base, uid):
        return Path(base) / "containerlib"
    if uid == 0:
        return Path("/run/containerlib")
    if _is_owned(f"/run/user/{uid}", uid):
        return Path(f"/run/user/{uid}/containerlib")
    return Path(f"/tmp/containerlib-{uid}")  # open_private() refuses one made by somebody else


def _is_owned(path: str, uid: int) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    # `sudo -E` and `su` leave another user's directory in the environment.
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def open_private(path: Path, *, option: str) -> int:
    """
    Make *path* if needed, make sure that nobody else gets in, and open it.

    An existing directory with a wider mode is narrowed if it is empty or
    already containerlib's, and refused otherwise: narrowing ``/tmp`` because
    somebody passed it as *option* would be worse than an error.
    """
    fd = _make_and_open(path, option)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise InvalidOption(
                f"{option}={str(path)!r} belongs to user {found.st_uid}, not to user {os.geteuid()}; "
                f"choose another directory",
                subject=str(path),
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode != 0o700:
            if mode & 0o077 and not _is_ours(fd):
                raise InvalidOption(
                    f"{option}={str(path)!r} has mode {mode:04o} and holds other things; "
                    f"choose an empty directory or make it private with chmod 700",
                    subject=str(path),
                )
            os.fchmod(fd, 0o700)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_and_open(path: Path, option: str) -> int:
    # The last component of a path below a directory that everybody may write
    # must not be a link laid there by somebody else.
    flags = DIRECTORY | (os.O_NOFOLLOW if _is_shared(path.parent) else 0)
    try:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                pass  # another process was faster
            return os.open(path, flags)
    except OSError as error:
        raise InvalidOption(
            f"{option}={str(path)!r} cannot be used as a directory: {error.strerror}", subject=str(path)
        ) from error


def _is_shared(path: Path) -> bool:
    try:
        return bool(os.stat(path).st_mode & 0o022)
    except OSError:
        return False


def _is_ours(fd: int) -> bool:
    names = os.listdir(fd)
    return not names or FORMAT_FILE in names


def open_subdirectory(name: str, *, dir_fd: int) -> int:
    """
    Open the directory *name* below *dir_fd*, making it with mode 0700.
    """
    flags = DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(name, flags, dir_fd=dir_fd)
    except FileNotFoundError:
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            pass
        return os.open(name, flags, dir_fd=dir_fd)


def close_all(fds: dict[str, int]) -> None:
    """
    Close kept descriptors; also the finaliser of those who keep them.

    It only closes and does not warn: these descriptors are a cache, nobody's
    work is lost with them.
    """
    while fds:
        os.close(fds.popitem()[1])
