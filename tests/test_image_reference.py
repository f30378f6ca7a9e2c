# SPDX-License-Identifier: Apache-2.0
"""
References: Docker's grammar and normalisation.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidReference
from containerlib.images import Reference

SHA = "sha256:" + "a1" * 32

NORMALISED = {
    "redis": "docker.io/library/redis",
    "redis:7": "docker.io/library/redis:7",
    "library/redis": "docker.io/library/redis",
    "docker.io/redis": "docker.io/library/redis",
    "index.docker.io/redis": "docker.io/library/redis",
    "docker.io/a/b": "docker.io/a/b",
    "me/app:1": "docker.io/me/app:1",
    "localhost/a": "localhost/a",
    "localhost:5000/a/b:c": "localhost:5000/a/b:c",
    "foo:5000/a": "foo:5000/a",
    "foo.com/a/b/c:x": "foo.com/a/b/c:x",
    "Foo/a": "Foo/a",
    "127.0.0.1:5000/x": "127.0.0.1:5000/x",
    "[2001:db8::1]:5000/repo:t": "[2001:db8::1]:5000/repo:t",
    "[::1]/repo": "[::1]/repo",
    f"redis@{SHA}": f"docker.io/library/redis@{SHA}",
    f"library/redis:7@{SHA}": f"docker.io/library/redis:7@{SHA}",
    "a__b/c-d--e.f": "docker.io/a__b/c-d--e.f",
    "xn--n3h.com/myimage": "xn--n3h.com/myimage",
    "a:" + "t" * 128: "docker.io/library/a:" + "t" * 128,
}

REFUSED = [
    "",
    ":",
    ":tag",
    "@" + SHA,
    "/a",
    "a/",
    "a//b",
    "a:",
    "a:b:c",
    "A",
    "me/App",
    "a_",
    "a..b",
    "a___b",
    "a._b",
    "-a",
    "a-",
    "a b",
    "a\n",
    "ä",
    "../x",
    "a/../b",
    "a@sha256:short",
    "a@sha256:" + "A1" * 32,
    "a@" + "b" * 64,
    "a@" + SHA + "x",
    "a1" * 32,
    "foo.com:port/a",
    "[foo]/a",
    "[::1/a",
    "a:" + "t" * 129,
    "a:-x",
    "a:.x",
    "docker.io/",
    "localhost:5000/",
    "http://foo.com/a",
    "x" * 256,
]


@pytest.mark.parametrize(("text", "full"), NORMALISED.items())
def test_normalisation(text: str, full: str) -> None:
    """
    Short names get Docker Hub's host and library; nothing else changes.
    """
    assert full == str(Reference.parse(text))


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text: str) -> None:
    """
    What is outside of the grammar is InvalidReference, a ValueError that carries the text.
    """
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)

    assert text == caught.value.subject
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("full", "familiar"),
    [
        ("docker.io/library/redis:7", "redis:7"),
        ("docker.io/me/app:1", "me/app:1"),
        ("docker.io/library/a/b:1", "library/a/b:1"),
        ("quay.io/me/app", "quay.io/me/app"),
        (f"docker.io/library/redis@{SHA}", f"redis@{SHA}"),
    ],
)
def test_familiar(full: str, familiar: str) -> None:
    """
    The familiar form leaves out what is understood.
    """
    assert familiar == Reference.parse(full).familiar


def test_default_tag() -> None:
    """
    A reference without tag and digest means latest.
    """
    assert "docker.io/library/a:latest" == str(Reference.parse("a").with_default_tag())
    assert "docker.io/library/a:1" == str(Reference.parse("a:1").with_default_tag())
    assert f"docker.io/library/a@{SHA}" == str(Reference.parse(f"a@{SHA}").with_default_tag())


@given(st.text(alphabet="aA0.:/@-_[]", max_size=30))
def test_round_trip(text: str) -> None:
    """
    Whatever is accepted means the same in its full and in its familiar form.
    """
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return

    assert reference == Reference.parse(str(reference))
    assert reference == Reference.parse(reference.familiar)
