# SPDX-License-Identifier: Apache-2.0
"""
The filter that a container's system calls pass.

This module is what a start goes through: it finds a compiled filter in the
cache and imports the compiler, the tables and the profile format only when
there is none yet.
"""

from __future__ import annotations

import binascii
import contextlib
import os
from typing import TYPE_CHECKING

from .capabilities import mask

if TYPE_CHECKING:  # pathlib and attrs classes take milliseconds to load, and most starts need none
    from pathlib import Path

    from .seccomp_profile import Profile

REVISION = 1
"""
Part of each entry's name in the cache: to be raised whenever the compiler, the
tables or the default profile come to another program than before.
"""

# SECCOMP_FILTER_FLAG_SPEC_ALLOW, for profiles that list no flags: the kernel
# need not slow the container's speculation down because it has a filter.
_DEFAULT_FLAGS = 1 << 2

_CHECKSUM = 4  # bytes after an entry's program

_programs: dict[str, bytes] = {}


def load_profile(profile: str | os.PathLike[str]) -> Profile:
    """
    Read a profile in Docker's format: the path of a file, or the JSON itself.

    Raises:
        InvalidOption: It is malformed; the message says what and where.
        NotSupported: It hands calls to another process (SCMP_ACT_NOTIFY).
    """
    from .seccomp_profile import load

    return load(profile)


def compile_profile(
    profile: Profile | None = None,
    *,
    caps: frozenset[str],
    arch: str | None = None,
    kernel: tuple[int, int] | None = None,
) -> bytes:
    """
    Return *profile*, by default containerlib's own, as an array of struct sock_filter.

    *caps* is the container's bounding set.  *arch*, a token such as
    ``SCMP_ARCH_AARCH64``, and *kernel* are this machine's unless given.
    """
    from . import seccomp_compiler, seccomp_default

    return seccomp_compiler.compile_profile(
        profile or seccomp_default.PROFILE, caps=caps, arch=arch, kernel=kernel
    )


def default_filter(caps: frozenset[str]) -> bytes:
    """
    Return the default profile compiled for *caps*, once per process.
    """
    key = _key(None, caps)
    program = _programs.get(key)
    if program is None:
        program = _programs[key] = compile_profile(caps=caps)
    return program


def cached_filter(cache: Path, profile: Profile | None, caps: frozenset[str]) -> bytes:
    """
    Return *profile*, None for the default, compiled for *caps* and this machine.

    Compiled programs stay in the directory *cache*, which is made when it is
    missing.  One that cannot be read or is damaged is made anew, and one that
    cannot be kept (a full disk) is used all the same.
    """
    key = _key(profile, caps)
    program = _programs.get(key)
    if program is None:
        path = os.path.join(cache, key)
        program = _read(path)
        if program is None:
            program = compile_profile(profile, caps=caps)
            with contextlib.suppress(OSError):
                _write(path, program)
        _programs[key] = program
    return program


def prune_cache(cache: Path) -> list[str]:
    """
    Delete the compiled programs of other kernels and other versions; returns
    their names.
    """
    system = os.uname()
    end = f"-{system.machine}-{system.release}".replace("/", "_")
    removed = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(cache):
            if not (name.startswith(f"{REVISION}-") and name.endswith(end)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(cache, name))
                    removed.append(name)
    return removed


def filter_flags(profile: Profile | None) -> int:
    """
    Return the SECCOMP_FILTER_FLAG_* bits that the filter is to be loaded with.
    """
    return _DEFAULT_FLAGS if profile is None or profile.flags is None else profile.flags


def _key(profile: Profile | None, caps: frozenset[str]) -> str:
    """
    Name everything that a compiled program depends on.
    """
    name = "default"
    if profile is not None:
        from hashlib import blake2b

        name = blake2b(profile.source or repr(profile).encode(), digest_size=20).hexdigest()
    system = os.uname()
    return f"{REVISION}-{name}-{mask(caps):x}-{system.machine}-{system.release}".replace("/", "_")


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            entry = file.read()
    except OSError:
        return None
    program, checksum = entry[:-_CHECKSUM], entry[-_CHECKSUM:]
    # After a power failure a file can have its name and size but not its content.
    if not program or len(program) % 8 or _checksum(program) != checksum:
        return None
    return program


def _write(path: str, program: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(program + _checksum(program))
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _checksum(program: bytes) -> bytes:
    return binascii.crc32(program).to_bytes(_CHECKSUM, "little")
