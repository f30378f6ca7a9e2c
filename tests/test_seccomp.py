# SPDX-License-Identifier: Apache-2.0
"""
The compiler against a second reading of the profile format, and the default profile against Docker's.

What the kernel makes of the programs is in tests/security/test_seccomp.py.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerlib.errors import InvalidOption
from containerlib.runtime import seccomp
from containerlib.runtime.capabilities import DEFAULT, NAMES
from containerlib.runtime.syscalls import ABIS, numbers

ALLOW, LOG, KILL_PROCESS = 0x7FFF0000, 0x7FFC0000, 0x80000000
EPERM, ENOSYS = 0x50001, 0x50026
X86_64, X86, X32 = (ABIS[f"SCMP_ARCH_{name}"] for name in ("X86_64", "X86", "X32"))
HERE: dict[str, Any] = {"arch": "SCMP_ARCH_X86_64", "kernel": (6, 18)}
ADMIN = DEFAULT | {"CAP_SYS_ADMIN"}


def simulate(program: bytes, audit: int, number: int, *args: int, big_endian: bool = False) -> int:
    """
    Run a program as the kernel does; return the action.
    """
    order = ">" if big_endian else "<"
    padded = [value % 2**64 for value in (*args, *[0] * 6)][:6]
    data = struct.pack(f"{order}IIQ6Q", number % 2**32, audit, 0, *padded)
    code = [struct.unpack_from(f"{order}HBBI", program, at) for at in range(0, len(program), 8)]
    assert len(code) <= 4096
    a = at = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (a,) = struct.unpack_from(f"{order}I", data, k)
            case 0x54:
                a &= k
            case 0x05:
                at += k
            case 0x15:
                at += if_true if a == k else if_false
            case 0x25:
                at += if_true if a > k else if_false
            case 0x35:
                at += if_true if a >= k else if_false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(hex(operation))


def compiled(profile: dict[str, Any], caps: frozenset[str] = frozenset(), **where: Any) -> bytes:
    return seccomp.compile_profile(seccomp.load_profile(json.dumps(profile)), caps=caps, **(HERE | where))


def rule(names: str, action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": action, **more}


def argument(index: int, op: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


# --- the default profile ---------------------------------------------------------------------------------


def recorded() -> list[tuple[str, int, str, str]]:
    path = Path(__file__).parent / "data" / "seccomp_default_x86_64.txt"
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]
    return [(name, int(number), default, admin) for name, number, default, admin in lines]


@pytest.mark.parametrize(("caps", "column"), [(DEFAULT, 2), (ADMIN, 3)])
def test_default_answers_as_docker_s(caps: frozenset[str], column: int) -> None:
    """
    For each of the 385 system calls of x86_64 the verdict is that of Docker's profile.
    """
    words = {ALLOW: "allow", EPERM: "EPERM", ENOSYS: "ENOSYS"}
    program = seccomp.compile_profile(caps=caps, **HERE)
    answers = {row[0]: words[simulate(program, X86_64.audit, row[1], *[-1] * 6)] for row in recorded()}

    assert {str(row[0]): row[column] for row in recorded()} == answers


# name, arguments, verdict without and with CAP_SYS_ADMIN
CASES = [
    ("socket", (38,), EPERM, EPERM),  # AF_ALG
    ("socket", (40,), EPERM, EPERM),  # AF_VSOCK
    ("socket", (1 << 32 | 38,), EPERM, EPERM),  # the kernel looks at the lower half
    ("socket", (1 << 32 | 40,), EPERM, EPERM),
    ("socket", (1,), ALLOW, ALLOW),
    ("socket", (2,), ALLOW, ALLOW),
    ("socket", (37,), ALLOW, ALLOW),
    ("socket", (39,), ALLOW, ALLOW),
    ("socket", (44,), ALLOW, ALLOW),
    ("clone", (0x11,), ALLOW, ALLOW),
    ("clone", (0x3D0F00,), ALLOW, ALLOW),  # a thread
    ("clone", (0x10000000 | 17,), EPERM, ALLOW),  # CLONE_NEWUSER
    ("clone", (0x00020000,), EPERM, ALLOW),  # CLONE_NEWNS
    ("clone", (0x40000000,), EPERM, ALLOW),  # CLONE_NEWNET
    ("clone", (0x02000000,), EPERM, ALLOW),  # CLONE_NEWCGROUP
    ("clone3", (0, 0), ENOSYS, ALLOW),
    ("personality", (0,), ALLOW, ALLOW),
    ("personality", (8,), ALLOW, ALLOW),
    ("personality", (0x20000,), ALLOW, ALLOW),
    ("personality", (0x20008,), ALLOW, ALLOW),
    ("personality", (0xFFFFFFFF,), ALLOW, ALLOW),
    ("personality", (0x40000,), EPERM, EPERM),  # ADDR_NO_RANDOMIZE
    *(
        (name, (), EPERM, EPERM)
        for name in (
            "io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key userfaultfd "
            "kexec_load pivot_root swapon init_module reboot settimeofday acct iopl nfsservctl migrate_pages "
            "move_pages open_by_handle_at process_madvise vhangup"
        ).split()
    ),
    *(
        (name, (), EPERM, ALLOW)
        for name in (
            "bpf unshare mount umount2 setns fsopen move_mount open_tree perf_event_open syslog"
        ).split()
    ),
    ("open_tree_attr", (), ENOSYS, ENOSYS),
]


@pytest.mark.parametrize(("name", "args", "plain", "admin"), CASES)
def test_default_on_the_calls_that_matter(name: str, args: tuple[int, ...], plain: int, admin: int) -> None:
    """
    Doors to other namespaces, the kernel's crypto, rings and keys stay shut; x32 gets the same answers.
    """
    number = numbers(X86_64.token)[name]
    for caps, expected in ((DEFAULT, plain), (ADMIN, admin)):
        program = seccomp.compile_profile(caps=caps, **HERE)
        assert expected == simulate(program, X86_64.audit, number, *args)
        if name in numbers(X32.token):
            number32 = numbers(X32.token)[name] | 1 << 30
            assert expected == simulate(program, X32.audit, number32, *args)


@pytest.mark.parametrize("token", [abi.token for abi in ABIS.values() if abi.machines])
@pytest.mark.parametrize("caps", [DEFAULT, ADMIN, frozenset(NAMES)], ids=["default", "admin", "all"])
def test_default_holds_on_every_architecture(token: str, caps: frozenset[str]) -> None:
    """
    Programs have their architecture's byte order and numbers, and kill what enters by another way.
    """
    abi, table = ABIS[token], numbers(token)
    program = seccomp.compile_profile(caps=caps, arch=token, kernel=(6, 18))

    def ask(name: str, *args: int) -> int:
        return simulate(program, abi.audit, table[name], *args, big_endian=abi.big_endian)

    admin = "CAP_SYS_ADMIN" in caps
    assert [ALLOW, ALLOW, EPERM, EPERM] == [ask("openat"), ask("socket", 2), ask("socket", 38), ask("keyctl")]
    assert ([ALLOW, ALLOW] if admin else [EPERM, ENOSYS]) == [ask("mount"), ask("clone3")]
    assert ENOSYS == ask("listns")
    flags = (0, 0x10000000) if token == "SCMP_ARCH_S390X" else (0x10000000, 0)
    assert (ALLOW if admin else EPERM) == ask("clone", *flags)
    assert KILL_PROCESS == simulate(program, 0xDEAD, table["read"], big_endian=abi.big_endian)


def test_new_programs_have_a_new_revision() -> None:
    """
    Caches name programs by revision: when this fails, raise seccomp.REVISION and record the digest.
    """
    digest = hashlib.sha256()
    for token, abi in ABIS.items():
        for caps in (DEFAULT, ADMIN, frozenset(NAMES)) if abi.machines else ():
            digest.update(seccomp.compile_profile(caps=caps, arch=token, kernel=(6, 18)))

    assert (1, "bce425fbb6670bae") == (seccomp.REVISION, digest.hexdigest()[:16])


# --- the compiler ----------------------------------------------------------------------------------------

VALUES = st.sampled_from([0, 1, 2, 5, 0x80000000, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1])
CALLS = ["read", "write", "socket", "clone", "bind", "semop", "mmap", "openat", "prctl", "kill", "nothing"]
ACTIONS = {"ALLOW": ALLOW, "LOG": LOG, "TRAP": 0x30000, "KILL": 0, "KILL_PROCESS": KILL_PROCESS}
OPERATORS = {
    "NE": lambda a, b: a != b,
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "EQ": lambda a, b: a == b,
    "GE": lambda a, b: a >= b,
    "GT": lambda a, b: a > b,
}
tests = st.builds(argument, st.integers(0, 5), st.sampled_from([*OPERATORS, "MASKED_EQ"]), VALUES, VALUES)
whens = st.fixed_dictionaries(
    {},
    optional={
        "caps": st.lists(st.sampled_from(["CAP_CHOWN", "CAP_KILL"]), max_size=2),
        "arches": st.lists(st.sampled_from(["amd64", "x32", "arm64"]), max_size=2),
        "minKernel": st.sampled_from(["4.8", "6.18", "6.19", "7.0"]),
    },
)
rules = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(CALLS), min_size=1, max_size=4),
        "action": st.sampled_from([f"SCMP_ACT_{name}" for name in (*ACTIONS, "ERRNO", "TRACE")]),
        "args": st.lists(tests, max_size=3),
    },
    optional={"errnoRet": st.sampled_from([1, 2, 38]), "includes": whens, "excludes": whens},
)
profiles = st.fixed_dictionaries(
    {
        "defaultAction": st.sampled_from([f"SCMP_ACT_{name}" for name in (*ACTIONS, "ERRNO", "TRACE")]),
        "syscalls": st.lists(rules, max_size=8),
    },
    optional={"architectures": st.just(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]), "defaultErrnoRet": st.just(13)},
)


def meant(item: dict[str, Any], key: str = "action", errno_key: str = "errnoRet") -> int:
    name = item[key].removeprefix("SCMP_ACT_")
    base = {"ERRNO": 0x50000, "TRACE": 0x7FF00000}.get(name)
    return ACTIONS[name] if base is None else base | item.get(errno_key, 1)


def there(item: dict[str, Any], caps: frozenset[str]) -> bool:
    include, exclude = item.get("includes", {}), item.get("excludes", {})

    def reached(when: dict[str, Any]) -> bool:
        return (6, 18) >= tuple(int(part) for part in when["minKernel"].split("."))

    return (
        (not include.get("arches") or "amd64" in include["arches"])
        and set(include.get("caps", [])) <= caps
        and ("minKernel" not in include or reached(include))
        and "amd64" not in exclude.get("arches", [])
        and not set(exclude.get("caps", [])) & caps
        and ("minKernel" not in exclude or not reached(exclude))
    )


def holds(test: dict[str, Any], args: list[int], bits: int) -> bool:
    given_value, value = args[test["index"]] & bits, test["value"] & bits
    if test["op"] == "SCMP_CMP_MASKED_EQ":
        return bool(given_value & value == test["valueTwo"] & value)
    return bool(OPERATORS[test["op"].removeprefix("SCMP_CMP_")](given_value, value))


def possible(profile: dict[str, Any], caps: frozenset[str], abi: Any, name: str, args: list[int]) -> set[int]:
    """
    What the profile may answer: more than one action if conditions of rules with different ones hold.
    """
    default = meant(profile, "defaultAction", "defaultErrnoRet")
    bits, table = 2**abi.size - 1, numbers(abi.token)
    present = [item for item in profile["syscalls"] if there(item, caps)]
    newest = max((table.get(known, 0) for item in present for known in item["names"]), default=0)
    if table[name] > newest > 0 and not (default in (ALLOW, LOG) or default >> 16 == 0x7FF0):
        return {ENOSYS}
    matching = set()
    for item in present:
        if name not in item["names"] or meant(item) == default:
            continue
        indices = [test["index"] for test in item["args"]]
        combine = all if len(set(indices)) == len(indices) else any
        unconditional = [
            test for test in item["args"] if test["op"] == "SCMP_CMP_MASKED_EQ" and not test["value"] & bits
        ]
        if len(unconditional) == len(indices) or (combine is any and unconditional):
            return {meant(item)}
        if combine(holds(test, args, bits) for test in item["args"]):
            matching.add(meant(item))
    return matching or {default}


@settings(max_examples=300, deadline=None)
@given(
    profile=profiles,
    caps=st.frozensets(st.sampled_from(["CAP_CHOWN", "CAP_KILL"])),
    calls=st.lists(st.tuples(st.sampled_from(CALLS), st.lists(VALUES, min_size=6, max_size=6)), min_size=9),
)
def test_programs_do_what_profiles_say(
    profile: dict[str, Any], caps: frozenset[str], calls: list[tuple[str, list[int]]]
) -> None:
    """
    Whatever the profile, the program answers as its rules read.
    """
    program = compiled(profile, caps)
    for name, args in calls:
        for abi in (X86_64, X32) if "architectures" in profile else (X86_64,):
            if name in numbers(abi.token):
                number = numbers(abi.token)[name] + abi.offset
                assert simulate(program, abi.audit, number, *args) in possible(profile, caps, abi, name, args)


@settings(deadline=None)
@given(first=tests, args=st.lists(VALUES, min_size=6, max_size=6))
def test_arguments_are_compared_in_full(first: dict[str, Any], args: list[int]) -> None:
    """
    Each operator compares 64 bits, without a sign.
    """
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("read", args=[first])]})

    assert (ALLOW if holds(first, args, 2**64 - 1) else EPERM) == simulate(program, X86_64.audit, 0, *args)


def test_narrower_conditions_come_first() -> None:
    """
    Of overlapping conditions the narrower decides, and a rule without any decides before them.
    """
    overlapping = [
        rule("read", args=[argument(0, "LT", 100)]),
        rule("read", "SCMP_ACT_TRAP", args=[argument(0, "EQ", 5)]),
        rule("write", args=[argument(0, "EQ", 5)]),
        rule("write", "SCMP_ACT_TRAP"),
    ]
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": overlapping})

    answers = [simulate(program, X86_64.audit, 0, first) for first in (4, 5, 100)]
    assert [ALLOW, 0x30000, EPERM] == answers
    assert 0x30000 == simulate(program, X86_64.audit, 1, 5)


def test_other_modes_need_to_be_listed() -> None:
    """
    i386 and x32 are killed unless the profile has them; -1, by which a tracer skips a call, never is.
    """
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("read write close")]}
    alone = compiled(profile)
    every = compiled(profile | {"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]})
    calls = [(X86_64.audit, 0), (X86.audit, 3), (X86_64.audit, 1 << 30), (X86_64.audit, -1)]

    assert [ALLOW, KILL_PROCESS, KILL_PROCESS, ENOSYS] == [simulate(alone, *call) for call in calls]
    assert [ALLOW, ALLOW, ALLOW, ENOSYS] == [simulate(every, *call) for call in calls]


def test_multiplexers_follow_the_calls_behind_them() -> None:
    """
    On i386 a rule for a socket or ipc call also counts for socketcall(2) and ipc(2).
    """
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("bind semop")]}
    program = compiled(profile | {"architectures": ["SCMP_ARCH_X86"]})
    calls = [(361, 0), (102, 2), (102, 1), (117, 1), (117, 2)]

    assert [ALLOW, ALLOW, EPERM, ALLOW, EPERM] == [simulate(program, X86.audit, *call) for call in calls]


def test_long_programs_jump_far() -> None:
    """
    Chains longer than a conditional jump reaches are still left for the right action.
    """
    names = " ".join(sorted(set(numbers(X86_64.token)) - {"read"})[:100:2])
    many = [
        rule(names, f"SCMP_ACT_{action}", args=[argument(n % 6, "EQ", n << 32 | n)])
        for n in range(600)
        for action in [("ALLOW", "LOG", "TRAP")[n % 3]]
    ]
    program = compiled({"defaultAction": "SCMP_ACT_KILL", "syscalls": many})

    for n in (0, 1, 2, 299, 598, 599):
        for name in names.split()[::7]:
            args = [n << 32 | n if index == n % 6 else 7 for index in range(6)]
            expected = (ALLOW, LOG, 0x30000)[n % 3]
            assert expected == simulate(program, X86_64.audit, numbers(X86_64.token)[name], *args)


def test_programs_too_long_for_the_kernel_are_refused() -> None:
    """
    More than 4096 instructions raise InvalidOption.
    """
    many = [rule("read", args=[argument(0, "EQ", n)]) for n in range(2000)]
    with pytest.raises(InvalidOption, match="instructions, and the kernel takes 4096"):
        compiled({"defaultAction": "SCMP_ACT_KILL", "syscalls": many})
