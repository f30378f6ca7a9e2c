# SPDX-License-Identifier: Apache-2.0
"""
Never run: mypy proves that users' programs get these types.
"""

from __future__ import annotations

from typing import assert_type

from containerlib import errors


def subject(error: errors.ContainerlibError) -> None:
    assert_type(error.subject, str | None)


def command_failed(error: errors.CommandFailed) -> None:
    assert_type(error.exit_code, int)
    assert_type(error.stdout, str | bytes)
    assert_type(error.command, tuple[str, ...])


def is_also(error: errors.NotFound) -> LookupError:
    return error


def kernel_error(error: errors.KernelError) -> OSError:
    assert_type(error.stage, str)
    return error
