# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containerlib.errors import InvalidOption, NotSupported
from containerlib.runtime import capabilities
from containerlib.runtime.capabilities import DEFAULT, NAMES, effective_set

EVERYTHING = (1 << len(NAMES)) - 1
some_names = st.sets(st.sampled_from([*NAMES, "ALL"]), max_size=5)


def test_numbers_are_the_kernel_s() -> None:
    """
    Each name has the number that linux/capability.h gives it.
    """
    known = {"CHOWN": 0, "NET_ADMIN": 12, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "SETFCAP": 31}
    known |= {"SYSLOG": 34, "PERFMON": 38, "BPF": 39, "CHECKPOINT_RESTORE": 40}

    assert {f"CAP_{name}": 1 << number for name, number in known.items()} == {
        f"CAP_{name}": capabilities.mask([f"CAP_{name}"]) for name in known
    }
    assert 41 == len(NAMES)


@pytest.mark.parametrize(
    "text", ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_net_admin", "Cap_Net_Admin"]
)
def test_names_are_read_in_any_case(text: str) -> None:
    """
    Case and the prefix CAP_ do not matter.
    """
    assert "CAP_NET_ADMIN" == capabilities.parse(text)


def test_all_is_a_name() -> None:
    """
    ALL is read in any case and keeps its meaning.
    """
    assert "ALL" == capabilities.parse("all")


@pytest.mark.parametrize("text", ["NET_ADMINN", "", "CAP_", "CAP_ALL", "12", "NET ADMIN", None])
def test_unknown_names_are_refused(text: str) -> None:
    """
    What is no capability raises InvalidOption, naming option and value.
    """
    with pytest.raises(InvalidOption, match=re.escape(f"cap_drop: {text!r} is not a capability")) as caught:
        capabilities.parse(text, option="cap_drop")
    assert "cap_drop" == caught.value.subject


@settings(deadline=None)
@given(bits=st.integers(0, EVERYTHING))
def test_mask_and_names_are_inverse(bits: int) -> None:
    """
    A mask is the same after a way through names.
    """
    assert bits == capabilities.mask(capabilities.names(bits))


def test_the_default_is_docker_s() -> None:
    """
    Without options a container has Docker's fourteen.
    """
    fourteen = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE"
    fourteen += " SYS_CHROOT KILL AUDIT_WRITE"
    assert {f"CAP_{name}" for name in fourteen.split()} == effective_set(available=EVERYTHING)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["SYS_ADMIN"], [], DEFAULT | {"CAP_SYS_ADMIN"}),
        ([], ["CHOWN", "kill"], DEFAULT - {"CAP_CHOWN", "CAP_KILL"}),
        (["CHOWN"], ["CHOWN"], DEFAULT),
        (["NET_ADMIN"], ["ALL"], {"CAP_NET_ADMIN"}),
        ([], ["ALL"], set()),
        (["ALL"], [], set(NAMES)),
        (["ALL"], ["SYS_ADMIN"], set(NAMES) - {"CAP_SYS_ADMIN"}),
        (["ALL", "SYS_ADMIN"], ["SYS_ADMIN"], set(NAMES) - {"CAP_SYS_ADMIN"}),
        (["ALL"], ["ALL"], set(NAMES)),
    ],
)
def test_add_and_drop_combine_as_with_docker(add: list[str], drop: list[str], expected: set[str]) -> None:
    """
    ALL in cap_add comes first, then ALL in cap_drop, and otherwise adding wins over dropping.
    """
    assert expected == effective_set(cap_add=add, cap_drop=drop, available=EVERYTHING)


def test_privileged_has_all() -> None:
    """
    A privileged container has every capability, whatever is dropped.
    """
    assert set(NAMES) == effective_set(privileged=True, cap_drop=["ALL"], available=EVERYTHING)


def test_what_the_host_lacks_is_left_out() -> None:
    """
    The default, ALL and privileged come without what the host cannot give.
    """
    poorer = EVERYTHING & ~capabilities.mask(["CAP_SYS_RESOURCE", "CAP_CHOWN"])

    assert DEFAULT - {"CAP_CHOWN"} == effective_set(available=poorer)
    assert capabilities.names(poorer) == effective_set(cap_add=["ALL"], available=poorer)
    assert capabilities.names(poorer) == effective_set(privileged=True, available=poorer)


@pytest.mark.parametrize("privileged", [False, True])
def test_what_the_host_lacks_cannot_be_asked_for(privileged: bool) -> None:
    """
    A capability that was asked for and cannot be given raises NotSupported, naming it.
    """
    poorer = EVERYTHING & ~capabilities.mask(["CAP_SYS_RESOURCE"])
    with pytest.raises(NotSupported, match="CAP_SYS_RESOURCE") as caught:
        effective_set(cap_add=["sys_resource"], privileged=privileged, available=poorer)
    assert "CAP_SYS_RESOURCE" == caught.value.subject


@settings(deadline=None)
@given(add=some_names, drop=some_names, privileged=st.booleans(), missing=some_names)
def test_nobody_gets_what_the_host_lacks(
    add: set[str], drop: set[str], privileged: bool, missing: set[str]
) -> None:
    """
    Whatever is asked for, the result lies within what the host can give.
    """
    available = EVERYTHING & ~capabilities.mask(missing - {"ALL"})
    try:
        result = effective_set(cap_add=add, cap_drop=drop, privileged=privileged, available=available)
    except NotSupported:
        assert add & missing - {"ALL"}
    else:
        assert 0 == capabilities.mask(result) & ~available


def test_the_host_is_asked() -> None:
    """
    Without a user namespace the bounding set is the limit, with one what the kernel knows.
    """
    with open("/proc/self/status") as file:
        bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))

    assert bounding & EVERYTHING == capabilities.obtainable() & EVERYTHING
    assert (2 << capabilities.last()) - 1 == capabilities.obtainable(user_namespace=True)
    assert DEFAULT & capabilities.names(bounding) == effective_set()
