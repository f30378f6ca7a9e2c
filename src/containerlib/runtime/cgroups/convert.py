# SPDX-License-Identifier: Apache-2.0
"""
From the words people use for limits to the kernel's files.

Options speak version 1's units, as Docker's do; version 2 has other ranges.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable

from containerlib.errors import InvalidOption

PERIOD = 100_000
"""
Microseconds over which processor time is shared out: the kernel's default.
"""

_QUOTA_MIN = 1_000


def cpu_quota(cpus: float) -> int:
    """
    Microseconds of processor time in each period.

    The kernel takes no less than a millisecond.
    """
    if not math.isfinite(cpus) or round(cpus * PERIOD) < _QUOTA_MIN:
        raise InvalidOption(f"cpus: {cpus!r} is not a number of processors from 0.01", subject="cpus")
    return round(cpus * PERIOD)


def cpu_weight(shares: int) -> int:
    """
    Version 2's weight (1 to 10,000) for version 1's *shares* (2 to 262,144).

    Shares of 1,024 and a weight of 100 are the defaults and must meet.  The
    parabola through the logarithms of both ends and of the defaults is what
    crun 1.23 and runc 1.3.2 agreed on (opencontainers/cgroups pull 20): ten to
    the power of (l² + 125 l) / 612 - 7/34, where l is the shares' binary logarithm.
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    logarithm = math.log2(shares)
    return math.ceil(10 ** ((logarithm * logarithm + 125 * logarithm) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """
    Version 2's weight (1 to 10,000) for a ``blkio`` *weight* (10 to 1,000),
    linearly, as the runtimes do.
    """
    return 1 + (weight - 10) * 9_999 // 990


def swap_max(memory: int | None, memory_and_swap: int) -> str:
    """
    ``memory.swap.max`` for a limit of memory and swap together.
    """
    if memory_and_swap < 0:
        return "max"
    if memory is None or memory_and_swap < memory:
        raise InvalidOption(
            f"memswap_limit: {memory_and_swap} is memory and swap together and cannot be less than "
            f"mem_limit ({'not set' if memory is None else memory}): raise it, or leave it out",
            subject="memswap_limit",
        )
    return str(memory_and_swap - memory)


def parse_set(text: str, *, option: str = "cpuset") -> set[int]:
    """
    The numbers of a list like ``0-3,8``.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        words = (first, last) if dash else (first,)
        # Longer words could only name processors that no kernel has.
        if not all(word.isascii() and word.isdigit() and len(word) <= 5 for word in words):
            raise InvalidOption(f"{option}: {text!r} is not a list like '0-3,8'", subject=option)
        if dash and int(last) < int(first):
            raise InvalidOption(f"{option}: {part!r} in {text!r} counts downwards", subject=option)
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return numbers


def check_subset(option: str, text: str, available: str) -> None:
    """
    Refuse numbers that the group above does not have.
    """
    missing = parse_set(text, option=option) - parse_set(available, option=option)
    if missing:
        raise InvalidOption(
            f"{option}: {', '.join(map(str, sorted(missing)[:8]))} of {text!r} cannot be used here, "
            f"only {available}",
            subject=option,
        )


def block_device(path: str) -> str:
    """
    ``major:minor`` of the block device *path*.

    Limits are kept per disk: the kernel has none for a partition.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidOption(f"blkio_config: {path}: {error.strerror}", subject=path) from None
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidOption(
            f"blkio_config: {path} is not a block device: name a disk, like /dev/sda", subject=path
        )
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if os.path.exists(f"/sys/dev/block/{number}/partition"):
        raise InvalidOption(
            f"blkio_config: {path} is a partition: limits are kept per disk, name that", subject=path
        )
    return number


def io_max(limits: Iterable[tuple[str, Iterable[tuple[str, int]]]]) -> list[str]:
    """
    Lines of ``io.max``, one for each device; a rate of 0 takes its limit away.
    """
    lines: dict[str, list[str]] = {}
    for key, rates in limits:
        for path, rate in rates:
            lines.setdefault(block_device(path), []).append(f"{key}={rate or 'max'}")
    return [" ".join((number, *words)) for number, words in lines.items()]
