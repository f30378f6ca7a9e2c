# SPDX-License-Identifier: Apache-2.0
"""
The reader of passwd and group, given files that only an attacker writes.
"""

from __future__ import annotations

from collections.abc import Callable

_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nme:x:1000:100:Me,,,:/home/me:/bin/sh\n"
_GROUP = b"root:x:0:\nusers:x:100:\naudio:x:29:me,you\n"
_SPECS = {
    "name": b"me",
    "both": b"me:audio",
    "ids": b"1000:29",
    "no entry": b"4000000000",
    "too large": b"4294967295:99999999999999999999",
    "nothing": b"",
    "group alone": b":audio",
    "nobody": b"nobody",
}


def test_any_files_give_ids_or_an_error(fuzz: Callable[..., None]) -> None:
    """
    No passwd, group or name of a user leads outside of the files, or to an id that means none.
    """
    seeds = {name: spec + b"\n" + _PASSWD + b"\xff" + _GROUP for name, spec in _SPECS.items()}
    seeds["cut"] = b"me\nme:x:1000"
    seeds["long line"] = b"me\n" + b"x" * 3000 + b"\n" + _PASSWD

    fuzz("fuzz_users.c", ["init/users.c", "error.c"], seeds)
