# SPDX-License-Identifier: Apache-2.0
"""
Errors as values: what they carry survives copies and pickles.
"""

from __future__ import annotations

import copy
import pickle

import pytest

import containerlib as cl

ERRORS = [
    cl.KernelError("open /x", errno=2, stage="open", path="/x", subject="x"),
    cl.CommandFailed("failed", args=("a",), exit_code=1, stdout="o", stderr="e", subject="c"),
    cl.ContainerTimeout("late", subject="c", stdout=b"o", stderr=b"e"),
    cl.ContainerExited("ended", subject="c", exit_code=1, logs="l"),
    cl.CommandNotFound("none", subject="c", stage="exec", errno=2, path="a"),
    cl.ImageNotFound("none", subject="i"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_pickles_and_copies(error: cl.ContainerlibError) -> None:
    """
    A copied or pickled error says the same and carries the same.
    """
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(error) is type(again)
        assert str(error) == str(again)
        assert error.__dict__ == again.__dict__
        assert getattr(error, "errno", None) == getattr(again, "errno", None)
        assert getattr(error, "strerror", None) == getattr(again, "strerror", None)
