# SPDX-License-Identifier: Apache-2.0
"""
Which devices a container may use: rules, version 1's list, version 2's program.

Version 1 keeps a list of exceptions in the group.  Version 2 asks an eBPF
program attached to the group, which is compiled here to the kernel's
instructions (``struct bpf_insn``), so nothing but bpf(2) is needed.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable, Sequence

import attrs

from containerlib.errors import DeviceError, InvalidOption
from containerlib.types import Device

_RULE = re.compile(r"([abc])(?: (\d+|\*):(\d+|\*))?(?: ([rwm]{1,3}))?")


@attrs.frozen(kw_only=True)
class DeviceRule:
    """
    A kind of device that is allowed; None is any number.

    *type* is ``c``, ``b`` or ``a`` for both; *permissions* are letters of
    ``rwm``.
    """

    type: str
    major: int | None = None
    minor: int | None = None
    permissions: str = "rwm"

    @classmethod
    def parse(cls, text: str) -> DeviceRule:
        """
        Read a rule as ``device_cgroup_rules`` has them: ``c 10:229 rwm``.
        """
        match = _RULE.fullmatch(text.strip())
        numbers: list[int | None] = [None, None]
        if match is not None and match[1] != "a" and match[2] is None:
            match = None
        if match is not None:
            numbers = [None if word in (None, "*") else int(word) for word in (match[2], match[3])]
        if match is None or any(number is not None and number >= 1 << 32 for number in numbers):
            raise InvalidOption(
                f"device_cgroup_rules: {text!r} is not a rule like 'c 10:229 rwm' or 'b *:* r'",
                subject="device_cgroup_rules",
            )
        letters = match[4] or "rwm"
        return cls(
            type=match[1],
            major=numbers[0],
            minor=numbers[1],
            permissions="".join(letter for letter in "rwm" if letter in letters),
        )

    def __str__(self) -> str:
        """
        The rule as the kernel and the option spell it.
        """
        major = "*" if self.major is None else self.major
        minor = "*" if self.minor is None else self.minor
        return f"{self.type} {major}:{minor} {self.permissions}"


def _default(*texts: str) -> tuple[DeviceRule, ...]:
    return tuple(map(DeviceRule.parse, texts))


DEFAULT_RULES = _default(
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts
)
"""
What every container may use, as in Docker: making any node is harmless while
using it is not allowed.
"""


def device_rules(devices: Iterable[Device]) -> list[DeviceRule]:
    """
    The rules for *devices*; a directory stands for every device below it.
    """
    rules = []
    for device in devices:
        found = False
        for path in _nodes(device.source):
            try:
                status = os.stat(path)
            except OSError as error:
                raise DeviceError(
                    f"devices: {path}: {error.strerror}",
                    subject=path,
                    stage="device",
                    errno=error.errno or 0,
                    path=path,
                ) from None
            kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
            if kind:
                found = True
                rules.append(
                    DeviceRule(
                        type=kind,
                        major=os.major(status.st_rdev),
                        minor=os.minor(status.st_rdev),
                        permissions="".join(letter for letter in "rwm" if letter in device.permissions),
                    )
                )
        if not found:
            raise DeviceError(
                f"devices: {device.source} is no device of the host, nor a directory with one",
                subject=device.source,
                stage="device",
                path=device.source,
            )
    return rules


def _nodes(source: str) -> Iterable[str]:
    """
    *source* itself, or what is below it.
    """
    if not os.path.isdir(source):
        return [source]
    return [os.path.join(top, name) for top, _, names in os.walk(source) for name in names]


def merge(rules: Sequence[DeviceRule]) -> list[DeviceRule]:
    """
    *rules* with the permissions of equal devices joined.

    The kernel asks for reading and writing at once, and one rule must answer.
    """
    letters: dict[tuple[str, int | None, int | None], set[str]] = {}
    for rule in rules:
        letters.setdefault((rule.type, rule.major, rule.minor), set()).update(rule.permissions)
    return [
        DeviceRule(type=kind, major=major, minor=minor, permissions="".join(x for x in "rwm" if x in allowed))
        for (kind, major, minor), allowed in letters.items()
    ]


# eBPF: opcodes and registers, from linux/bpf.h and linux/bpf_common.h.
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE_REGISTER = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_MOVE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K: 32 bits, the upper half becomes 0
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_JUMP_NOT_EQUAL = 0x56  # BPF_JMP32 | BPF_JNE | BPF_K
_EXIT = 0x95

_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPE = {"b": 1, "c": 2}
_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = range(6)


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """
    One ``struct bpf_insn``.
    """
    return struct.pack("=BBhI", code, source << 4 | target, offset, value & 0xFFFFFFFF)


def compile_program(rules: Sequence[DeviceRule]) -> bytes:
    """
    A program of type BPF_PROG_TYPE_CGROUP_DEVICE that allows *rules* only.

    Its context is ``struct bpf_cgroup_dev_ctx``: access and type in one word,
    major, minor.  It answers 1 for allowed.
    """
    if any(str(rule) == "a *:* rwm" for rule in rules):
        # What came after a rule for everything would be dead code, which the
        # verifier of old kernels refuses.
        return _instruction(_MOVE, _RESULT, value=1) + _instruction(_EXIT)
    program = [
        _instruction(_LOAD_WORD, _WANTED, _CONTEXT, 0),
        _instruction(_MOVE_REGISTER, _KIND, _WANTED),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in merge(rules):
        tests: list[tuple[int, int]] = []
        if rule.type != "a":
            tests.append((_KIND, _TYPE[rule.type]))
        if rule.major is not None:
            tests.append((_MAJOR, rule.major))
        if rule.minor is not None:
            tests.append((_MINOR, rule.minor))
        block: list[bytes] = [_instruction(_MOVE, _RESULT, value=1), _instruction(_EXIT)]
        refused = 7 & ~sum(_ACCESS[letter] for letter in rule.permissions)
        if refused:
            # The result register is free until the end: it holds the bits
            # that were asked for and are not in the rule.
            block = [
                _instruction(_MOVE_REGISTER, _RESULT, _WANTED),
                _instruction(_AND, _RESULT, value=refused),
                _instruction(_JUMP_NOT_EQUAL, _RESULT, offset=len(block), value=0),
                *block,
            ]
        for register, number in reversed(tests):
            block.insert(0, _instruction(_JUMP_NOT_EQUAL, register, offset=len(block), value=number))
        program += block
    program += [_instruction(_MOVE, _RESULT, value=0), _instruction(_EXIT)]
    return b"".join(program)
