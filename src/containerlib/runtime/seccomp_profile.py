# SPDX-License-Identifier: Apache-2.0
"""
A seccomp profile, and how one is read from Docker's JSON.

The format is that of ``docker run --security-opt seccomp=profile.json``: a
default action, the architectures, and rules that name system calls, with
conditions on the arguments and on the container's capabilities, the
architecture and the kernel.  Every fault is reported with the place it was
found in, as in ``syscalls[3].args[0].op``.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import attrs

from containerlib.errors import InvalidOption, NotSupported

from .syscalls import ABIS, OTHER_TOKENS

# The kernel's answers, from linux/seccomp.h; the low 16 bits carry an errno.
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

_ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in "NE LT LE EQ GE GT MASKED_EQ".split())

# SECCOMP_FILTER_FLAG_*: TSYNC has nothing to do, as the filter is loaded while
# there is one thread.
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
}

FULL = (1 << 64) - 1


@attrs.frozen(kw_only=True)
class Condition:
    """
    A test of one argument: the bits in *mask*, compared with *value*.
    """

    index: int
    operator: str
    value: int
    mask: int = FULL


@attrs.frozen(kw_only=True)
class When:
    """
    What a rule's being there depends on; empty fields do not count.
    """

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    kernel: tuple[int, int] | None = None


@attrs.frozen(kw_only=True)
class Rule:
    """
    One action for some system calls, if all conditions hold.

    The rule is there if all of *includes* holds and none of *excludes*.
    """

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...] = ()
    includes: When = When()
    excludes: When = When()


@attrs.frozen(kw_only=True)
class Profile:
    """
    Actions of the kernel for system calls.

    *architectures* are added to the native one; *arch_map* says which are
    added by what the native one is.  *flags* is what seccomp(2) takes, None if
    the profile lists none.  *source* identifies the profile, for the
    cache of compiled filters.
    """

    default: int
    rules: tuple[Rule, ...] = ()
    architectures: tuple[str, ...] = ()
    arch_map: tuple[tuple[str, tuple[str, ...]], ...] = ()
    flags: int | None = None
    source: bytes = attrs.field(default=b"", repr=False, eq=False)


def load(profile: str | os.PathLike[str]) -> Profile:
    """
    Read *profile*: the path of a JSON file, or the JSON text itself.
    """
    if isinstance(profile, str) and profile.lstrip().startswith("{"):
        return _Reader("the profile given").profile(profile.encode())
    try:
        with open(profile, "rb") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        raise InvalidOption(
            f"security_opt: cannot read the seccomp profile {os.fspath(profile)!r}: "
            f"{getattr(error, 'strerror', None) or error}; give the path of a JSON file, or the JSON itself",
            subject="security_opt",
        ) from error
    return _Reader(os.fspath(profile)).profile(text)


class _Reader:
    """
    Turns JSON into values, naming the place of whatever does not fit.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def fail(self, place: str, problem: str) -> NoReturn:
        where = f"{place}: " if place else ""
        raise InvalidOption(
            f"security_opt: seccomp profile {self.name}: {where}{problem}", subject="security_opt"
        )

    def field(self, data: dict[str, Any], key: str, kind: type, place: str, default: Any) -> Any:
        """
        Return data[key], or *default* if it is absent or null.
        """
        value = data.get(key)
        if value is None:
            return default
        # JSON's true is an int to Python, and to nobody else.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            words = {str: "a string", int: "a whole number", list: "a list", dict: "an object"}
            self.fail(f"{place}{key}", f"must be {words[kind]}, not {json.dumps(value)[:60]}")
        return value

    def strings(self, data: dict[str, Any], key: str, place: str) -> tuple[str, ...]:
        values = self.field(data, key, list, place, [])
        for number, value in enumerate(values):
            if not isinstance(value, str):
                self.fail(f"{place}{key}[{number}]", f"must be a string, not {json.dumps(value)[:60]}")
        return tuple(values)

    def objects(self, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
        values = self.field(data, key, list, "", [])
        for number, value in enumerate(values):
            if not isinstance(value, dict):
                self.fail(f"{key}[{number}]", f"must be an object, not {json.dumps(value)[:60]}")
        return values  # type: ignore[no-any-return]

    def choice(self, value: str, known: Sequence[str], place: str) -> str:
        if value not in known:
            self.fail(place, f"{value!r} is unknown; use one of {', '.join(sorted(known))}")
        return value

    def number(self, data: dict[str, Any], key: str, place: str, default: int | None, limit: int) -> int:
        value = self.field(data, key, int, place, default)
        if value is None:
            self.fail(f"{place}{key}", "is missing")
        if not 0 <= value <= limit:
            self.fail(f"{place}{key}", f"must be from 0 to {limit}, not {value}")
        return int(value)

    def profile(self, text: bytes) -> Profile:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.fail("", f"is not JSON: {error}")
        if not isinstance(data, dict):
            self.fail("", "must be an object with 'defaultAction' and 'syscalls'")
        if self.field(data, "listenerPath", str, "", "") or data.get("listenerMetadata"):
            raise NotSupported(
                f"security_opt: seccomp profile {self.name}: listenerPath: system calls cannot be handed to "
                "another process; give SCMP_ACT_ALLOW or SCMP_ACT_ERRNO rules instead",
                subject="security_opt",
            )
        if not data.get("defaultAction"):
            self.fail("defaultAction", "is missing; for no filter at all say seccomp=unconfined")
        architectures = self.strings(data, "architectures", "")
        arch_map = tuple(self.entry(*item) for item in enumerate(self.objects(data, "archMap")))
        if architectures and arch_map:
            self.fail("archMap", "cannot stand beside 'architectures'; use one of them")
        for number, token in enumerate(architectures):
            self.architecture(token, f"architectures[{number}]")
        return Profile(
            default=self.action(data, "defaultAction", "defaultErrnoRet", ""),
            rules=tuple(self.rule(*item) for item in enumerate(self.objects(data, "syscalls"))),
            architectures=architectures,
            arch_map=arch_map,
            flags=self.flags(data),
            source=text,
        )

    def action(self, data: dict[str, Any], key: str, errno_key: str, place: str) -> int:
        name = self.field(data, key, str, place, "")
        if name == "SCMP_ACT_NOTIFY":
            raise NotSupported(
                f"security_opt: seccomp profile {self.name}: {place}{key}: SCMP_ACT_NOTIFY hands system "
                "calls to another process, which is not supported; use SCMP_ACT_ALLOW or SCMP_ACT_ERRNO",
                subject="security_opt",
            )
        action = _ACTIONS[self.choice(name, tuple(_ACTIONS), f"{place}{key}")]
        number = self.number(data, errno_key, place, errno.EPERM, 0xFFFF)
        return action | number if action in (ERRNO, TRACE) else action

    def architecture(self, token: str, place: str) -> str:
        return self.choice(token, (*ABIS, *OTHER_TOKENS), place)

    def entry(self, number: int, data: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
        place = f"archMap[{number}]."
        token = self.field(data, "architecture", str, place, "")
        others = self.strings(data, "subArchitectures", place)
        for position, other in enumerate(others):
            self.architecture(other, f"{place}subArchitectures[{position}]")
        return self.architecture(token, f"{place}architecture"), others

    def flags(self, data: dict[str, Any]) -> int | None:
        if data.get("flags") is None:
            return None
        flags = 0
        for number, name in enumerate(self.strings(data, "flags", "")):
            if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":
                raise NotSupported(
                    f"security_opt: seccomp profile {self.name}: flags[{number}]: {name} is for "
                    "SCMP_ACT_NOTIFY, which is not supported; leave it out",
                    subject="security_opt",
                )
            flags |= _FLAGS[self.choice(name, tuple(_FLAGS), f"flags[{number}]")]
        return flags

    def rule(self, number: int, data: dict[str, Any]) -> Rule:
        place = f"syscalls[{number}]."
        names = self.strings(data, "names", place)
        if name := self.field(data, "name", str, place, ""):
            if names:
                self.fail(f"{place}name", "cannot stand beside 'names'; use 'names'")
            names = (name,)
        conditions = self.field(data, "args", list, place, [])
        return Rule(
            names=names,
            action=self.action(data, "action", "errnoRet", place),
            conditions=tuple(self.condition(place, *item) for item in enumerate(conditions)),
            includes=self.when(data, "includes", place),
            excludes=self.when(data, "excludes", place),
        )

    def condition(self, place: str, number: int, data: object) -> Condition:
        place = f"{place}args[{number}]."
        if not isinstance(data, dict):
            self.fail(place[:-1], f"must be an object, not {json.dumps(data)[:60]}")
        operator = self.choice(self.field(data, "op", str, place, ""), tuple(OPERATORS), f"{place}op")
        index = self.number(data, "index", place, None, 5)
        value = self.number(data, "value", place, 0, FULL)
        second = self.number(data, "valueTwo", place, 0, FULL)
        if operator == "SCMP_CMP_MASKED_EQ":
            # The first value is the mask, the second what must be left.
            return Condition(index=index, operator="SCMP_CMP_EQ", value=second & value, mask=value)
        return Condition(index=index, operator=operator, value=value)

    def when(self, data: dict[str, Any], key: str, place: str) -> When:
        fields = self.field(data, key, dict, place, {})
        place = f"{place}{key}."
        return When(
            caps=self.strings(fields, "caps", place),
            arches=self.strings(fields, "arches", place),
            kernel=self.kernel(self.field(fields, "minKernel", str, place, ""), f"{place}minKernel"),
        )

    def kernel(self, text: str, place: str) -> tuple[int, int] | None:
        if not text:
            return None
        parts = text.split(".")
        if len(parts) != 2 or not all(
            part.isascii() and part.isdecimal() and len(part) < 4 for part in parts
        ):
            self.fail(place, f"{text!r} is not a kernel version such as '5.10'")
        return int(parts[0]), int(parts[1])
