# SPDX-License-Identifier: Apache-2.0
"""
Every error that containerlib raises.

The tree::

    ContainerlibError
    ├── NotFound(LookupError)
    │   ├── ContainerNotFound
    │   ├── ImageNotFound
    │   ├── NetworkNotFound
    │   └── VolumeNotFound
    ├── Conflict                     name taken, in use, wrong state
    ├── InvalidArchive(ValueError)   a tar that is damaged, or leads out of its tree
    ├── InvalidReference(ValueError)
    ├── InvalidOption(ValueError)    an option's value; names option and value
    ├── CommandFailed                non-zero exit with check=True
    ├── ContainerTimeout(TimeoutError)
    ├── ContainerExited              ended before it became ready
    │   └── ExitCodeLost             ended, and nobody saw how
    ├── StartFailed                  the first process could not be started
    │   ├── CommandNotFound
    │   ├── CommandNotExecutable
    │   ├── UserNotFound
    │   ├── WorkingDirectoryError
    │   ├── MountError
    │   └── DeviceError
    ├── RemoteError                  raised by a function run with Container.call
    ├── BuildError
    ├── RegistryError
    │   ├── AuthenticationError
    │   ├── ManifestUnknown
    │   ├── DigestMismatch
    │   ├── RateLimited
    │   └── RegistryUnavailable
    ├── KernelError(OSError)         a system call; carries stage, path, errno
    ├── NotSupported                 what this host lacks, and how to get it
    └── CorruptState                 the state directory contradicts itself
"""

from __future__ import annotations

import os


class ContainerlibError(Exception):
    """
    Root of everything that containerlib raises on purpose.

    Never raised itself.  *subject* is the name, id, path or reference that
    the error is about.
    """

    subject: str | None = None

    def __init__(self, message: str, *, subject: str | None = None) -> None:
        super().__init__(message)
        if subject is not None:
            self.subject = subject

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> BaseException:
    """
    Unpickle an error without its constructor, whose keywords are required.
    """
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class NotFound(ContainerlibError, LookupError):
    """
    No object of that name or id.
    """


class ContainerNotFound(NotFound):
    """
    No container of that name or id.
    """


class ImageNotFound(NotFound):
    """
    No image of that reference or id in the store.
    """


class VolumeNotFound(NotFound):
    """
    No volume of that name.
    """


class NetworkNotFound(NotFound):
    """
    No network of that name or id.
    """


class Conflict(ContainerlibError):
    """
    The name is taken, the object is in use, or its state forbids the call.
    """


class InvalidArchive(ContainerlibError, ValueError):
    """
    Not a tar that can be unpacked: damaged, or one that leads out of its tree.
    """


class InvalidReference(ContainerlibError, ValueError):
    """
    Not an image reference as Docker's grammar has it.
    """


class InvalidOption(ContainerlibError, ValueError):
    """
    An option's value cannot be used; the message names option and value.
    """


class CommandFailed(ContainerlibError):
    """
    A command ended with a non-zero exit code and *check* was true.

    *args* is the command, as in :class:`Completed`, and not, as in other
    exceptions, the message; that is what ``str`` gives.
    """

    def __init__(
        self,
        message: str,
        *,
        args: tuple[str, ...],
        exit_code: int,
        stdout: str | bytes,
        stderr: str | bytes,
        subject: str | None = None,
    ) -> None:
        super().__init__(message, subject=subject)
        self.message = message
        self.args = self.command = args
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr

    def __str__(self) -> str:
        return self.message


class ContainerTimeout(ContainerlibError, TimeoutError):
    """
    Something was not done in the time given; carries the output so far.
    """

    def __init__(
        self,
        message: str,
        *,
        subject: str | None = None,
        stdout: str | bytes | None = None,
        stderr: str | bytes | None = None,
    ) -> None:
        super().__init__(message, subject=subject)
        self.stdout = stdout
        self.stderr = stderr


class ContainerExited(ContainerlibError):
    """
    The container ended while something else was expected of it.
    """

    def __init__(
        self, message: str, *, subject: str | None = None, exit_code: int | None = None, logs: str = ""
    ) -> None:
        super().__init__(message, subject=subject)
        self.exit_code = exit_code
        self.logs = logs


class ExitCodeLost(ContainerExited):
    """
    The container has ended but its monitor was killed or the host went down:
    nobody saw the exit code.
    """


class StartFailed(ContainerlibError):
    """
    The container's first process, or a process run in it, could not start.

    *stage* says which step failed, *errno* what the kernel answered.
    """

    def __init__(
        self, message: str, *, subject: str | None = None, stage: str = "", errno: int = 0, path: str = ""
    ) -> None:
        super().__init__(message, subject=subject)
        self.stage = stage
        self.errno = errno
        self.path = path


class CommandNotFound(StartFailed):
    """
    The command is neither a file nor on the PATH inside.
    """


class CommandNotExecutable(StartFailed):
    """
    The command is there but cannot run: no execute bit, a directory, another
    architecture, a missing interpreter.
    """


class UserNotFound(StartFailed):
    """
    No such user or group in the container's passwd and group files.
    """


class WorkingDirectoryError(StartFailed):
    """
    The working directory is missing, not a directory, or outside the root.
    """


class MountError(StartFailed):
    """
    A mount could not be made: missing source, refused target.
    """


class DeviceError(StartFailed):
    """
    A device could not be given to the container.
    """


class RemoteError(ContainerlibError):
    """
    A function run inside a container raised what cannot be raised here.
    """


class BuildError(ContainerlibError):
    """
    An instruction of a Dockerfile failed.
    """


class RegistryError(ContainerlibError):
    """
    A registry refused, or did not answer as the protocol says.
    """


class AuthenticationError(RegistryError):
    """
    The registry wants other credentials.
    """


class ManifestUnknown(RegistryError):
    """
    The registry has no such tag or digest.
    """


class DigestMismatch(RegistryError):
    """
    Content is not what its digest says.
    """


class RateLimited(RegistryError):
    """
    The registry asked to come back later.
    """


class RegistryUnavailable(RegistryError):
    """
    The registry could not be reached.
    """


class KernelError(ContainerlibError, OSError):
    """
    A system call failed.

    *stage* is the step, *path* the operand, *errno* the kernel's answer.
    """

    def __init__(
        self, message: str, *, errno: int, stage: str = "", path: str = "", subject: str | None = None
    ) -> None:
        ContainerlibError.__init__(self, message, subject=subject)
        self.errno = errno
        self.strerror = os.strerror(errno)
        self.stage = stage
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        # OSError keeps these two outside of __dict__.
        return _rebuild, (
            type(self),
            self.args,
            self.__dict__ | {"errno": self.errno, "strerror": self.strerror},
        )

    def __str__(self) -> str:
        return f"{self.args[0]}: {os.strerror(self.errno or 0)}"


class NotSupported(ContainerlibError):
    """
    This host cannot do what was asked for; the message says how it could.
    """


class CorruptState(ContainerlibError):
    """
    The state directory contradicts itself; the message names the file.
    """
