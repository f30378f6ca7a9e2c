# SPDX-License-Identifier: Apache-2.0
"""
Reading profiles, and keeping compiled ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerlib.errors import InvalidOption, NotSupported
from containerlib.runtime import seccomp
from containerlib.runtime.capabilities import DEFAULT


def profile_with(**rule: Any) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", **rule}],
    }


def with_argument(**fields: Any) -> dict[str, Any]:
    return profile_with(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ", **fields}])


FAULTS = [
    (
        {"defaultAction": "SCMP_ACT_NO"},
        "defaultAction: 'SCMP_ACT_NO' is unknown; use one of SCMP_ACT_ALLOW, ",
    ),
    ({"defaultAction": 3}, "defaultAction: must be a string, not 3"),
    ({}, "defaultAction: is missing; for no filter at all say seccomp=unconfined"),
    (
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": "EPERM"},
        'defaultErrnoRet: must be a whole number, not "EPERM"',
    ),
    (
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536},
        "defaultErrnoRet: must be from 0 to 65535, not 65536",
    ),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}, "syscalls: must be a list, not {}"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": ["read"]}, 'syscalls[0]: must be an object, not "read"'),
    ({"defaultAction": "SCMP_ACT_ERRNO", "flags": ["FAST"]}, "flags[0]: 'FAST' is unknown"),
    (
        {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_Z80"]},
        "architectures[0]: 'SCMP_ARCH_Z80' is unknown",
    ),
    (
        {"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "x86"}]},
        "archMap[0].architecture: 'x86' is unknown",
    ),
    (
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86", "subArchitectures": ["x"]}],
        },
        "archMap[0].subArchitectures[0]: 'x' is unknown",
    ),
    (
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86"],
            "archMap": [{"architecture": "SCMP_ARCH_X86"}],
        },
        "archMap: cannot stand beside 'architectures'",
    ),
    (profile_with(action="allow"), "syscalls[0].action: 'allow' is unknown"),
    (profile_with(names="read"), 'syscalls[0].names: must be a list, not "read"'),
    (profile_with(names=["read", 0]), "syscalls[0].names[1]: must be a string, not 0"),
    (profile_with(name="read"), "syscalls[0].name: cannot stand beside 'names'"),
    (profile_with(errnoRet=-1), "syscalls[0].errnoRet: must be from 0 to 65535, not -1"),
    (profile_with(args=[5]), "syscalls[0].args[0]: must be an object, not 5"),
    (with_argument(op="=="), "syscalls[0].args[0].op: '==' is unknown; use one of SCMP_CMP_EQ, "),
    (with_argument(op=None), "syscalls[0].args[0].op: '' is unknown"),
    (with_argument(index=6), "syscalls[0].args[0].index: must be from 0 to 5, not 6"),
    (with_argument(index=None), "syscalls[0].args[0].index: is missing"),
    (with_argument(index=True), "syscalls[0].args[0].index: must be a whole number, not true"),
    (with_argument(value=1.5), "syscalls[0].args[0].value: must be a whole number, not 1.5"),
    (with_argument(value=2**64), "syscalls[0].args[0].value: must be from 0 to"),
    (profile_with(includes=[]), "syscalls[0].includes: must be an object, not []"),
    (profile_with(includes={"caps": "CAP_KILL"}), "syscalls[0].includes.caps: must be a list"),
    (profile_with(excludes={"minKernel": 5.1}), "syscalls[0].excludes.minKernel: must be a string, not 5.1"),
    (
        profile_with(excludes={"minKernel": "5"}),
        "syscalls[0].excludes.minKernel: '5' is not a kernel version",
    ),
    (profile_with(excludes={"minKernel": "5.x"}), "syscalls[0].excludes.minKernel: '5.x' is not a kernel"),
]


@pytest.mark.parametrize(("profile", "message"), FAULTS)
def test_faults_are_named_with_their_place(profile: dict[str, Any], message: str) -> None:
    """
    A malformed profile raises InvalidOption that says what is wrong and where.
    """
    with pytest.raises(InvalidOption) as caught:
        seccomp.load_profile(json.dumps(profile))
    assert f"security_opt: seccomp profile the profile given: {message}" in str(caught.value)
    assert "security_opt" == caught.value.subject


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (profile_with(action="SCMP_ACT_NOTIFY"), "syscalls[0].action: SCMP_ACT_NOTIFY hands system calls"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "defaultAction: SCMP_ACT_NOTIFY hands system calls"),
        (profile_with() | {"listenerPath": "/run/agent.sock"}, "listenerPath: system calls cannot be handed"),
        (
            profile_with() | {"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]},
            "flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for SCMP_ACT_NOTIFY",
        ),
    ],
)
def test_handing_calls_to_an_agent_is_not_supported(profile: dict[str, Any], message: str) -> None:
    """
    Profiles for a seccomp agent raise NotSupported, which says so.
    """
    with pytest.raises(NotSupported) as caught:
        seccomp.load_profile(json.dumps(profile))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["{", '{"defaultAction": "SCMP_ACT_ALLOW",}', '{"a":' * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    """
    Text that is no JSON raises InvalidOption, however deep it is nested.
    """
    with pytest.raises(InvalidOption, match="is not JSON"):
        seccomp.load_profile(text)


def test_files_are_named(tmp_path: Path) -> None:
    """
    A file that is missing or malformed is named in the error, and one that is well-formed is read.
    """
    path = tmp_path / "profile.json"
    with pytest.raises(InvalidOption, match=f"cannot read the seccomp profile '{path}': No such file"):
        seccomp.load_profile(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(InvalidOption, match=f"seccomp profile {path}: is not JSON"):
        seccomp.load_profile(str(path))
    path.write_text("[]")
    with pytest.raises(InvalidOption, match=f"seccomp profile {path}: must be an object"):
        seccomp.load_profile(str(path))
    path.write_text(json.dumps(profile_with()))
    assert seccomp.load_profile(json.dumps(profile_with())) == seccomp.load_profile(path)


def test_docker_s_lenience_is_kept() -> None:
    """
    Unknown calls and keys, nulls, comments and the old single name are taken as Docker takes them.
    """
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": None,
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW", "args": None, "comment": "old", "includes": {}},
            {"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW", "args": [], "x": 1},
        ],
    }
    plain = profile_with()
    for item in (profile, plain):
        seccomp.load_profile(json.dumps(item))
    programs = [
        seccomp.compile_profile(seccomp.load_profile(json.dumps(item)), caps=frozenset())
        for item in (profile, plain)
    ]
    assert programs[1] == programs[0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (None, 4),
        ([], 0),
        (["SECCOMP_FILTER_FLAG_LOG"], 2),
        (["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"], 6),
    ],
)
def test_flags_are_those_of_the_profile(flags: list[str] | None, expected: int) -> None:
    """
    A profile's flags are seccomp(2)'s; without a list, speculation stays as fast as it is.
    """
    profile = seccomp.load_profile(json.dumps(profile_with() | {"flags": flags}))
    assert expected == seccomp.filter_flags(profile)
    assert 4 == seccomp.filter_flags(None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("aS_5.", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from("names action args op index value includes caps minKernel architecture".split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(data=st.dictionaries(st.sampled_from(["syscalls", "archMap", "flags", "architectures"]), json_values))
def test_no_json_is_a_crash(data: dict[str, Any]) -> None:
    """
    Whatever the JSON, it is a profile or an error of containerlib's own.
    """
    with contextlib.suppress(InvalidOption, NotSupported):
        seccomp.load_profile(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", **data}))


# --- the cache -------------------------------------------------------------------------------------------


def other_process(statements: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", statements, *arguments], check=True, capture_output=True, text=True
    ).stdout


CACHED = """
import sys
from pathlib import Path
from containerlib.runtime import capabilities, seccomp
program = seccomp.cached_filter(Path(sys.argv[1]), None, capabilities.DEFAULT)
slow = {"attrs", "attr", "json", "hashlib", "containerlib.runtime.seccomp_compiler"} & set(sys.modules)
print(program.hex(), sorted(slow))
"""


def test_programs_are_kept_between_processes(tmp_path: Path) -> None:
    """
    A second process reads the program and loads neither the compiler nor what it needs.
    """
    cache = tmp_path / "made" / "cache"
    first, loaded = other_process(CACHED, str(cache)).split(maxsplit=1)
    second, loaded_again = other_process(CACHED, str(cache)).split(maxsplit=1)

    assert seccomp.default_filter(DEFAULT).hex() == first == second
    assert "seccomp_compiler" in loaded
    assert "[]" == loaded_again.strip()
    assert [0o700, 0o600] == [os.stat(path).st_mode & 0o777 for path in (cache, *cache.iterdir())]


@pytest.mark.parametrize("damage", [b"", b"\0" * 2000, b"\0" * 4])
def test_damaged_entries_are_made_anew(tmp_path: Path, damage: bytes) -> None:
    """
    What a power failure leaves of an entry is replaced.
    """
    first = other_process(CACHED, str(tmp_path)).split()[0]
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(damage)

    assert first == other_process(CACHED, str(tmp_path)).split()[0]
    assert first == other_process(CACHED, str(tmp_path)).split()[0]
    assert [entry] == list(tmp_path.iterdir())
    assert len(first) // 2 + 4 == entry.stat().st_size


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    """
    Where no entry can be made, the program is compiled each time.
    """
    (tmp_path / "file").touch()
    program = other_process(CACHED, str(tmp_path / "file" / "cache")).split()[0]
    assert seccomp.default_filter(DEFAULT).hex() == program


def test_entries_are_told_apart(tmp_path: Path) -> None:
    """
    Profiles and capabilities each have their own entry.
    """
    one = seccomp.load_profile(json.dumps(profile_with()))
    two = seccomp.load_profile(json.dumps(profile_with(action="SCMP_ACT_LOG")))
    programs = {
        seccomp.cached_filter(tmp_path, profile, caps)
        for profile in (None, one, two)
        for caps in (frozenset({"CAP_CHOWN"}), frozenset({"CAP_SYS_ADMIN"}))
    }
    assert 4 == len(programs)  # the two profiles do not look at capabilities
    assert 6 == len(list(tmp_path.iterdir()))
    assert seccomp.compile_profile(one, caps=DEFAULT) in programs
