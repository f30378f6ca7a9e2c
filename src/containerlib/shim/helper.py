# SPDX-License-Identifier: Apache-2.0
"""
Starting the static helper ``containerlib-init``.

The helper runs from a sealed memory copy, never from its file: whatever runs
in a container can at most reach the copy through ``/proc/PID/exe``, and the
seals refuse every write (CVE-2019-5736).  Python itself is never forked, so
the cost does not depend on its size, and no Python runs between fork and exec.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
import threading
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import KernelError
from containerlib.shim._shim import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

F_SEAL_EXEC = 0x0020  # linux/fcntl.h, Linux 6.3
MFD_EXEC = 0x0010  # linux/memfd.h, Linux 6.3

UNKNOWN = 255
"""
The status of a helper whose end somebody else in this process collected.
"""

_copy: dict[str, int] = {}


def helper_fd() -> int:
    """
    A descriptor of this process's sealed copy of the helper.
    """
    # No lock, which a fork could leave locked for ever in the child: of two
    # threads that come here at once, one wins.
    if (fd := _copy.get("fd")) is None:
        fd = _seal_copy()
        if (kept := _copy.setdefault("fd", fd)) != fd:
            os.close(fd)
            fd = kept
    return fd


def _seal_copy() -> int:
    """
    Copy the installed helper into a memfd and seal it.
    """
    data = _installed()
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("containerlib-init", flags | MFD_EXEC)
    except OSError:  # kernels before 6.3 do not know MFD_EXEC
        fd = os.memfd_create("containerlib-init", flags)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, 0o555)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | F_SEAL_EXEC | fcntl.F_SEAL_SEAL)
        except OSError:  # before 6.3 there is no F_SEAL_EXEC
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
        # A descriptor opened for reading: "text file busy" is for writers.
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
    return reader


def _installed() -> bytes:
    """
    The installed helper.
    """
    # importlib.resources would find it too, but loads zipfile and tempfile
    # first.  An editable installation has the sources in one directory and
    # what was built in another.
    for directory in sys.modules["containerlib.shim"].__path__:
        try:
            with open(os.path.join(directory, "_bin", "containerlib-init"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            continue
    message = "containerlib-init is not installed beside containerlib; install containerlib again"
    raise KernelError(message, errno=errno.ENOENT, stage="spawn", path="containerlib-init")


@attrs.define(eq=False)
class Child:
    """
    A process started by :func:`spawn`: its pid, and a pidfd that cannot be
    mistaken for another process.

    Never waits with ``waitpid(-1)`` and needs no SIGCHLD handler.  Several
    threads may hold one.
    """

    pid: int
    pidfd: int
    status: int | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)

    def poll(self) -> int | None:
        """
        The wait status once the process has ended, else None; None, too,
        while another thread waits for the end.
        """
        # A descriptor that another thread waits on must not be closed: its
        # number may soon be that of something else.
        if not self._lock.acquire(blocking=False):
            return self.status
        try:
            return self._wait(os.WEXITED | os.WNOHANG)
        finally:
            self._lock.release()

    def wait(self) -> int:
        """
        Wait for the end: the exit code, or minus the signal's number.
        """
        with self._lock:
            status = self._wait(os.WEXITED)
        assert status is not None
        return status

    def _wait(self, options: int) -> int | None:
        if self.status is None:
            try:
                info = os.waitid(os.P_PIDFD, self.pidfd, options)
            except ChildProcessError:
                # Somebody waited for all children of this process, or ignores
                # SIGCHLD; the end may be still to come, and is waited for.
                if not self._ended(block=not options & os.WNOHANG):
                    return None
                self.status = UNKNOWN
            else:
                if info is None:
                    return None
                exited = info.si_code == os.CLD_EXITED
                self.status = info.si_status if exited else -info.si_status
            self.close()
        return self.status

    def _ended(self, *, block: bool) -> bool:
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(None if block else 0))

    def close(self) -> None:
        """
        Give the pidfd back; the process goes on.
        """
        fd, self.pidfd = self.pidfd, -1
        if fd >= 0:
            os.close(fd)


def spawn(argv: Sequence[str | bytes], *, fds: Sequence[int], env: Sequence[str] = ()) -> Child:
    """
    Start the helper with *argv*; descriptor ``i`` of it is ``fds[i]``.

    -1 stands for /dev/null among the first three and for closed above.  No
    other descriptor is passed on, and *env* is the whole environment.
    """
    arguments = [ffi.new("char[]", os.fsencode(word)) for word in argv]
    variables = [ffi.new("char[]", os.fsencode(word)) for word in env]
    c_argv = ffi.new("char *[]", [*arguments, ffi.NULL])
    c_env = ffi.new("char *[]", [*variables, ffi.NULL])
    pidfd = ffi.new("int *")
    error = ffi.new("struct cl_error *")
    pid = lib.cl_spawn(helper_fd(), c_argv, c_env, list(fds), len(fds), pidfd, error)
    if pid < 0:
        text = ffi.string(error.msg).decode(errors="replace")
        raise KernelError(text, errno=error.code, stage="spawn", path=os.fsdecode(argv[0]))
    return Child(pid, pidfd[0])


def run_helper(argv: Sequence[str | bytes], *, fds: Sequence[int]) -> int:
    """
    Start the helper, wait for it and return its exit status.
    """
    return spawn(argv, fds=fds).wait()
