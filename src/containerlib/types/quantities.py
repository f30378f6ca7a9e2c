# SPDX-License-Identifier: Apache-2.0
"""
Sizes, durations, signals and paths, written as Docker's users write them.

Each parser takes the option's name first, for its message: a bad value is an
InvalidOption that names option and value and says what would be accepted, a
value of a wrong type a TypeError.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from containerlib.errors import InvalidOption

MAXIMUM_BYTES: Final = 0x7FFFFFFFFFFFFFFF

# Patterns of this package are text: re compiles and keeps them at their first
# use, which spares every import a quarter of a millisecond for each.

_BYTES: Final = r"(?ai)([0-9]+)(\.[0-9]*)?(?: ?(?:([kmgtp])(?:i?b)?|b))?"
_SHIFTS: Final = {None: 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}

_DURATION: Final = r"(?a)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_SECONDS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_NUMBER: Final = r"(?a)[0-9]+(?:\.[0-9]*)?"
_INTEGER: Final = r"(?a)[0-9]{1,19}"

#: The numbers of <asm-generic/signal.h>, which x86, arm, riscv and s390 share.
SIGNALS: Final = {
    "HUP": 1,
    "INT": 2,
    "QUIT": 3,
    "ILL": 4,
    "TRAP": 5,
    "ABRT": 6,
    "IOT": 6,
    "BUS": 7,
    "FPE": 8,
    "KILL": 9,
    "USR1": 10,
    "SEGV": 11,
    "USR2": 12,
    "PIPE": 13,
    "ALRM": 14,
    "TERM": 15,
    "STKFLT": 16,
    "CHLD": 17,
    "CLD": 17,
    "CONT": 18,
    "STOP": 19,
    "TSTP": 20,
    "TTIN": 21,
    "TTOU": 22,
    "URG": 23,
    "XCPU": 24,
    "XFSZ": 25,
    "VTALRM": 26,
    "PROF": 27,
    "WINCH": 28,
    "IO": 29,
    "POLL": 29,
    "PWR": 30,
    "SYS": 31,
    "RTMIN": 34,
    "RTMAX": 64,
}
_SIGNAL_NAMES: Final = {
    number: name for name, number in SIGNALS.items() if name not in ("IOT", "CLD", "POLL")
}


def invalid(option: str, value: object, accepted: str) -> InvalidOption:
    """
    The error for a value that cannot be used; *accepted* says what could.
    """
    shown = repr(value)
    if len(shown) > 200:
        shown = f"{shown[:160]}…{shown[-20:]}"
    return InvalidOption(f"{option}: {shown} cannot be used: expected {accepted}", subject=option)


def wrong_type(option: str, value: object, accepted: str) -> TypeError:
    """
    The error for a value whose type no spelling would make right.
    """
    return TypeError(f"{option}: expected {accepted}, not {type(value).__name__} ({value!r:.100})")


def parse_bytes(value: int | str, *, option: str = "size", unlimited: bool = False) -> int:
    """
    A number of bytes: an integer, or ``"512m"``, ``"1.5GiB"``, ``"64 kb"``.

    Suffixes are powers of 1024 and case does not matter, as in Docker.  With
    *unlimited*, -1 is taken too.
    """
    number: int
    if isinstance(value, str):
        if unlimited and value == "-1":
            return -1
        match = re.fullmatch(_BYTES, value)
        if match is None or len(value) > 40:
            raise invalid(option, value, "bytes like 536870912, '512m', '1.5g' or '64KiB'")
        whole, fraction, suffix = match.groups()
        shift = _SHIFTS[suffix and suffix.lower()]
        number = int(whole) << shift
        if fraction and len(fraction) > 1:
            number += int(float("0" + fraction) * (1 << shift))
    elif type(value) is int:
        if unlimited and value == -1:
            return -1
        number = value
    else:
        raise wrong_type(option, value, "bytes as an integer or a string like '512m'")
    if not 0 <= number <= MAXIMUM_BYTES:
        raise invalid(option, value, "0 to 2**63-1 bytes" + (", or -1 for no limit" if unlimited else ""))
    return number


def parse_duration(value: float | str | timedelta, *, option: str = "duration") -> float:
    """
    Seconds: a number, a timedelta, or Go's ``"1m30s"``, ``"500ms"``, ``"2h"``.

    A string without a unit counts seconds.
    """
    seconds: float
    if isinstance(value, str):
        if re.fullmatch(_NUMBER, value):
            seconds = float(value)
        else:
            seconds = 0.0
            rest = value
            while match := re.match(_DURATION, rest):
                seconds += float(match[1]) * _SECONDS[match[2]]
                rest = rest[match.end() :]
            if rest or not value:
                raise invalid(option, value, "a duration like '1m30s', '500ms' or a number of seconds")
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value < 1e9:  # before float(), which overflows for a huge integer
            raise invalid(option, value, "a duration from 0 to 10**9 seconds")
        seconds = float(value)
    else:
        raise wrong_type(option, value, "a duration as seconds, a timedelta or a string like '1m30s'")
    if not 0 <= seconds < 1e9:
        raise invalid(option, value, "a duration from 0 to 10**9 seconds")
    return seconds


def parse_signal(value: int | str, *, option: str = "signal") -> int:
    """
    A signal's number: 15, ``"15"``, ``"TERM"``, ``"SIGTERM"``, ``"RTMIN+3"``.

    Real-time signals start at 34, as C libraries reserve 32 and 33.
    """
    number: int | None = None
    if isinstance(value, str):
        name = value.upper().removeprefix("SIG")
        if re.fullmatch(_INTEGER, value):
            number = int(value)
        elif name in SIGNALS:
            number = SIGNALS[name]
        elif name.startswith("RTMIN+") and re.fullmatch(_INTEGER, name[6:]):
            number = SIGNALS["RTMIN"] + int(name[6:])
            number = number if number <= SIGNALS["RTMAX"] else None
        elif name.startswith("RTMAX-") and re.fullmatch(_INTEGER, name[6:]):
            number = SIGNALS["RTMAX"] - int(name[6:])
            number = number if number >= SIGNALS["RTMIN"] else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = int(value)  # signal.Signals too
    else:
        raise wrong_type(option, value, "a signal as a number or a name like 'SIGTERM'")
    if number is None or not 1 <= number <= 64:
        raise invalid(
            option, value, "a signal of this kernel: 1 to 64, or a name like 'SIGTERM', 'HUP', 'RTMIN+3'"
        )
    return number


def signal_name(number: int) -> str:
    """
    ``SIGTERM`` for 15, ``SIGRTMIN+3`` for 37, the number itself for 32.
    """
    if number in _SIGNAL_NAMES:
        return "SIG" + _SIGNAL_NAMES[number]
    return f"SIGRTMIN+{number - 34}" if 34 < number < 64 else str(number)


def parse_integer(
    option: str, value: object, *, minimum: int = 0, maximum: int = MAXIMUM_BYTES, shown: object = None
) -> int:
    """
    An integer within bounds, also as decimal text.

    *shown* is the whole value for the message when *value* is a part of it.
    """
    number: int
    if type(value) is int:
        number = value
    elif isinstance(value, str):
        digits = value.removeprefix("-")
        if not re.fullmatch(_INTEGER, digits):
            raise invalid(option, value if shown is None else shown, "an integer")
        number = -int(digits) if digits != value else int(digits)
    else:
        raise wrong_type(option, value, "an integer")
    if not minimum <= number <= maximum:
        bounds = f"{minimum} or more" if maximum == MAXIMUM_BYTES else f"{minimum} to {maximum}"
        raise invalid(option, value if shown is None else shown, f"an integer of {bounds}")
    return number


def clean_path(option: str, path: str) -> str:
    """
    An absolute path inside the container, without ``.``, ``..`` and double
    slashes; ``..`` stops at the root, as it does for a process there.
    """
    if not path.startswith("/") or "\0" in path:
        raise invalid(option, path, "an absolute path inside the container")
    if "//" not in path and "/." not in path and (path[-1] != "/" or path == "/"):
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
