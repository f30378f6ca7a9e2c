# SPDX-License-Identifier: Apache-2.0
"""
From a seccomp profile to the classic BPF program that the kernel runs.

First the rules are resolved for one container and host, per way of entering
the kernel, into verdicts for ranges of system call numbers: an action, or a
chain of conditions ending in actions.  Then the program is written from its
end to its beginning, so that each jump's target is known when the jump is
written; BPF jumps forwards only.

The program checks the architecture, then searches the ranges as a binary
tree.  Up to the verdict it looks at architecture and number alone: for calls
that are always allowed Linux 5.11 and later remember that, and do not run the
program at all.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Sequence
from typing import cast

from containerlib.errors import InvalidOption, NotSupported

from .seccomp_profile import ALLOW, ERRNO, KILL_PROCESS, LOG, TRACE, Condition, Profile, Rule, When
from .syscalls import ABIS, IPC_CALLS, SOCKET_CALLS, X32_BIT, Abi, numbers

MAXIMUM = 4096  # instructions, BPF_MAXINSNS

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_GREATER = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_WORD = 0xFFFFFFFF
_ENOSYS = ERRNO | errno.ENOSYS

Chain = tuple[tuple[tuple[Condition, ...], int], ...]
"""
Conditions and the action if all hold, tried in turn.
"""

Verdict = int | Chain
Ranges = list[tuple[int, Verdict]]
"""
Ascending first numbers; a range reaches up to the next one's first.
"""


_WIDER = {"SCMP_ARCH_X86": "SCMP_ARCH_X86_64", "SCMP_ARCH_ARM": "SCMP_ARCH_AARCH64"}


def host() -> tuple[str, tuple[int, int]]:
    """
    Return this machine's architecture as profiles name it, and its kernel's version.
    """
    system = os.uname()
    native = next((abi.token for abi in ABIS.values() if system.machine in abi.machines), None)
    if sys.maxsize > _WORD:
        # uname(2) tells processes with the personality PER_LINUX32 less than the kernel can.
        native = _WIDER.get(native or "", native)
    if native is None:
        raise NotSupported(
            f"seccomp: no table of system calls for {system.machine}; "
            "run with security_opt seccomp=unconfined"
        )
    major, minor = system.release.split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))]
    return native, (int(major), int(digits))


def compile_profile(
    profile: Profile,
    *,
    caps: frozenset[str],
    arch: str | None = None,
    kernel: tuple[int, int] | None = None,
) -> bytes:
    """
    Return *profile* as an array of struct sock_filter.

    *caps* is the container's bounding set.  *arch* is a token such as
    ``SCMP_ARCH_X86_64`` and *kernel* a version, by default this machine's.
    """
    if arch is None or kernel is None:
        native, version = host()
        arch, kernel = arch or native, kernel or version
    if arch not in ABIS or not ABIS[arch].machines:
        raise NotSupported(f"seccomp: no machine's own architecture with a table of calls: {arch!r}")
    rules = [rule for rule in profile.rules if _applies(rule, caps, ABIS[arch].docker, kernel)]
    writer = _Writer(big_endian=ABIS[arch].big_endian)
    writer.program([(abi, _ranges(abi, rules, profile.default)) for abi in _abis(profile, arch)])
    if len(writer.code) > MAXIMUM:
        raise InvalidOption(
            f"security_opt: the seccomp profile compiles to {len(writer.code)} instructions, and the kernel "
            f"takes {MAXIMUM}; use fewer conditions on arguments",
            subject="security_opt",
        )
    return writer.packed()


def _applies(rule: Rule, caps: frozenset[str], arch: str, kernel: tuple[int, int]) -> bool:
    without, need = rule.excludes, rule.includes
    if arch in without.arches or not caps.isdisjoint(without.caps) or _reached(without, kernel):
        return False
    return (
        (not need.arches or arch in need.arches)
        and caps.issuperset(need.caps)
        and (need.kernel is None or _reached(need, kernel))
    )


def _reached(when: When, kernel: tuple[int, int]) -> bool:
    return when.kernel is not None and kernel >= when.kernel


def _abis(profile: Profile, native: str) -> list[Abi]:
    """
    Return the ways in that the profile covers, the native one first.
    """
    tokens = [native, *profile.architectures]
    tokens += next((others for token, others in profile.arch_map if token == native), ())
    order = ABIS[native].big_endian
    return [
        ABIS[token] for token in dict.fromkeys(tokens) if token in ABIS and ABIS[token].big_endian == order
    ]


def _ranges(abi: Abi, rules: Sequence[Rule], default: int) -> Ranges:
    """
    Resolve *rules* for one way into the kernel.

    A call without a rule gets *default*, or ENOSYS if it is newer than every
    call that the rules name: programs then fall back to an older call, where
    EPERM would make them give up.
    """
    table = numbers(abi.token)
    newest = max(
        (n for rule in rules for name in rule.names if (n := table.get(name, 0)) < abi.ceiling), default=0
    )
    # What is known beyond the ceiling is old, though its number is high.
    verdicts = dict.fromkeys((n for n in table.values() if n >= abi.ceiling), cast(Verdict, default))
    verdicts |= _verdicts(abi, rules, default)
    ranges: Ranges = []
    position = 0

    def extend(first: int, verdict: Verdict) -> None:
        if not ranges or ranges[-1][1] != verdict:
            ranges.append((first, verdict))

    # A default that lets calls through, or asks a tracer, has nothing to soften.
    unknown = default if default in (ALLOW, LOG) or default & 0xFFFF0000 == TRACE or not newest else _ENOSYS
    if abi.token in ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"):
        # A number above 255 that the kernel does not know arrives as 0.
        verdicts.setdefault(0, unknown)
    end = (1 << 32) - abi.offset
    for number in [*sorted(verdicts), end]:
        # The numbers before this one; those above the newest are unknown.
        if position < number:
            if position <= newest:
                extend(position, default)
            if newest + 1 < number:
                extend(max(position, newest + 1), unknown)
        if number < end:
            extend(number, verdicts[number])
        position = number + 1
    return [(first + abi.offset, verdict) for first, verdict in ranges]


def _verdicts(abi: Abi, rules: Sequence[Rule], default: int) -> dict[int, Verdict]:
    """
    Return what the rules say to each number that they name.

    As with libseccomp, which Docker uses: a rule with the default action says
    nothing; the first rule without conditions decides alone; narrower
    conditions are tried first, whatever the order in the profile.
    """
    table = numbers(abi.token)
    bits = (1 << abi.size) - 1
    always: dict[int, int] = {}
    sometimes: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    for rule in rules:
        if rule.action == default:
            continue
        for alternative in _alternatives(rule, bits):
            for name in rule.names:
                for number, conditions in _targets(abi, table, name, alternative):
                    if not conditions:
                        always.setdefault(number, rule.action)
                    else:
                        sometimes.setdefault(number, []).append((conditions, rule.action))
    verdicts: dict[int, Verdict] = dict(always)
    for number, chain in sometimes.items():
        ordered = sorted(dict.fromkeys(chain), key=lambda link: [_breadth(test) for test in link[0]])
        verdicts.setdefault(number, (*ordered, ((), default)))
    return verdicts


def _alternatives(rule: Rule, bits: int) -> list[tuple[Condition, ...]]:
    """
    Return what *rule* asks for, any one of it sufficing: tests that must all hold, cut to *bits*.
    """
    tests = [
        Condition(index=test.index, operator=test.operator, value=test.value & bits, mask=test.mask & bits)
        for test in sorted(rule.conditions, key=lambda test: test.index)
    ]
    # Two tests of one argument: Docker has always taken them as two rules.
    several = len({test.index for test in tests}) < len(tests)
    # A test of no bits always holds.
    return (
        [(test,) if test.mask else () for test in tests]
        if several
        else [tuple(test for test in tests if test.mask)]
    )


def _targets(
    abi: Abi, table: dict[str, int], name: str, conditions: tuple[Condition, ...]
) -> list[tuple[int, tuple[Condition, ...]]]:
    targets = [(table[name], conditions)] if name in table else []
    if abi.multiplexed:
        # socketcall(2) and ipc(2) take which call is meant first, and then a
        # pointer, behind which nothing can be tested: libseccomp's answer.
        for through, calls in (("socketcall", SOCKET_CALLS), ("ipc", IPC_CALLS)):
            if name in calls:
                which = Condition(index=0, operator="SCMP_CMP_EQ", value=calls[name])
                rest = tuple(condition for condition in conditions if condition.index)
                targets.append((table[through], (which, *rest)))
    return targets


def _breadth(condition: Condition) -> tuple[int, int, int]:
    kind, value = condition.operator, condition.value
    if kind in ("SCMP_CMP_EQ", "SCMP_CMP_NE"):
        return -condition.index, 0, -value
    if kind in ("SCMP_CMP_LT", "SCMP_CMP_LE"):
        return -condition.index, 1, value
    return -condition.index, 2, -value


class _Writer:
    """
    Writes a program from the end: *code* is reversed, a label is an index in it.

    What is labelled *here* runs next if nothing jumps.
    """

    def __init__(self, *, big_endian: bool) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self.big_endian = big_endian
        self.returns: dict[int, int] = {}
        self.chains: dict[Chain, int] = {}

    @property
    def here(self) -> int:
        return len(self.code) - 1

    def emit(self, operation: int, value: int, if_true: int = 0, if_false: int = 0) -> int:
        self.code.append((operation, if_true, if_false, value))
        return self.here

    def packed(self) -> bytes:
        layout = struct.Struct(">HBBI" if self.big_endian else "<HBBI")
        return b"".join(layout.pack(*instruction) for instruction in reversed(self.code))

    def result(self, action: int) -> int:
        """
        Return the label of a return of *action* that a jump written next can reach.
        """
        label = self.returns.get(action)
        # Three: the jump itself, and the detours of its two targets.
        if label is None or self.here - label > 255 - 3:
            label = self.returns[action] = self.emit(_RETURN, action)
        return label

    def near(self, label: int) -> int:
        """
        Return *label*, or that of a detour to it if a conditional jump cannot reach so far.
        """
        if self.here - label <= 255 - 2:
            return label
        if self.code[label][0] == _RETURN:
            return self.result(self.code[label][3])
        return self.emit(_JUMP, self.here - label)

    def branch(self, operation: int, value: int, if_true: int, if_false: int) -> int:
        if if_true == if_false:
            return if_true
        if_true, if_false = self.near(if_true), self.near(if_false)
        return self.emit(operation, value, self.here - if_true, self.here - if_false)

    def follow(self, operation: int, value: int, then: int) -> int:
        """
        Write an instruction that does not jump, before the one labelled *then*.
        """
        if then != self.here:
            self.emit(_JUMP, self.here - then)
        return self.emit(operation, value)

    def program(self, parts: Sequence[tuple[Abi, Ranges]]) -> None:
        """
        Write it all.
        """
        # An architecture that the profile does not cover has numbers that would
        # be taken for others.
        label = self.result(KILL_PROCESS)
        for abi, ranges in reversed(self._merged(parts)):
            body = self.follow(_LOAD, _NUMBER, self.search(ranges))
            label = self.branch(_IF_EQUAL, abi.audit, body, label)
        self.follow(_LOAD, _ARCHITECTURE, label)

    @staticmethod
    def _merged(parts: Sequence[tuple[Abi, Ranges]]) -> list[tuple[Abi, Ranges]]:
        """
        Join x32 with x86_64: to the kernel they are one architecture.
        """
        found = {abi.token: ranges for abi, ranges in parts}
        merged = []
        for abi, ranges in parts:
            if abi.token == "SCMP_ARCH_X86_64":
                upper = found.get("SCMP_ARCH_X32", [(X32_BIT, KILL_PROCESS)])
                # -1 is what a tracer sets to skip a call, of either mode.
                lower = [item for item in ranges if item[0] < X32_BIT]
                ranges = [*lower, *upper]
                if "SCMP_ARCH_X32" not in found:
                    ranges.append((_WORD, lower[-1][1]))
            if abi.token != "SCMP_ARCH_X32":
                merged.append((abi, ranges))
        return merged

    def search(self, ranges: Ranges) -> int:
        """
        Write the binary search for the range that the loaded number is in.
        """
        if len(ranges) == 1:
            return self.verdict(ranges[0][1])
        if len(ranges) == 3 and ranges[0][1] == ranges[2][1] and ranges[1][0] + 1 == ranges[2][0]:
            rest = self.verdict(ranges[0][1])
            return self.branch(_IF_EQUAL, ranges[1][0], self.verdict(ranges[1][1]), rest)
        middle = len(ranges) // 2
        upper = self.search(ranges[middle:])
        lower = self.search(ranges[:middle])
        return self.branch(_IF_AT_LEAST, ranges[middle][0], upper, lower)

    def verdict(self, verdict: Verdict) -> int:
        if isinstance(verdict, int):
            return self.result(verdict)
        if verdict in self.chains:
            return self.chains[verdict]
        label = self.result(verdict[-1][1])
        for conditions, action in reversed(verdict[:-1]):
            otherwise = label
            label = self.result(action)
            for condition in reversed(conditions):
                label = self.condition(condition, label, otherwise)
        self.chains[verdict] = label
        return label

    def condition(self, condition: Condition, holds: int, fails: int) -> int:
        """
        Write a test of 64 bits by tests of 32; return its label.
        """
        first = _ARGUMENTS + 8 * condition.index
        low_offset, high_offset = (first + 4, first) if self.big_endian else (first, first + 4)
        mask, value = condition.mask, condition.value
        high, low = (high_offset, mask >> 32, value >> 32), (low_offset, mask & _WORD, value & _WORD)
        kind = condition.operator.removeprefix("SCMP_CMP_")
        if kind in ("NE", "LT", "LE"):
            kind = {"NE": "EQ", "LT": "GE", "LE": "GT"}[kind]
            holds, fails = fails, holds
        if kind == "EQ":
            return self.word(high, _IF_EQUAL, self.word(low, _IF_EQUAL, holds, fails), fails)
        label = self.word(low, _IF_GREATER if kind == "GT" else _IF_AT_LEAST, holds, fails)
        if not high[1]:
            return label
        same = self.branch(_IF_EQUAL, high[2], label, fails)
        above = self.branch(_IF_GREATER, high[2], holds, same)
        return self.masked(high, above)

    def word(self, word: tuple[int, int, int], operation: int, holds: int, fails: int) -> int:
        _, mask, value = word
        if not mask:
            # Nothing is looked at: nought is compared with nought.
            return fails if operation == _IF_GREATER else holds
        return self.masked(word, self.branch(operation, value, holds, fails))

    def masked(self, word: tuple[int, int, int], then: int) -> int:
        offset, mask, _ = word
        if mask != _WORD:
            then = self.follow(_AND, mask, then)
        return self.follow(_LOAD, offset, then)
