# SPDX-License-Identifier: Apache-2.0
"""
The monitor's clients, who do anything in any order.
"""

from __future__ import annotations

from collections.abc import Callable

# What fuzz_clients.c does for the first byte of a step.
SAY, TYPE, HEAR, TAKE, PRINT, REPLACE, TURN = range(7)


def _steps(*steps: tuple[int, int, int]) -> bytes:
    return bytes(number for step in steps for number in step)


def test_no_order_of_events_loses_input_or_holds_the_output(fuzz: Callable[..., None]) -> None:
    """
    Typed bytes arrive once and in order, and output waits only for clients that are there.
    """
    typed = [(TYPE, 0, 255), (TURN, 0, 0)]
    seeds = {
        "typed": _steps(*typed * 20, *[(TAKE, 0, 255), (TURN, 0, 0)] * 40),
        "printed while typed": _steps(*[*typed, (PRINT, 0, 250), (TAKE, 0, 100), (HEAR, 0, 0)] * 40),
        "attached and gone": _steps((SAY, 1, 0), (TURN, 0, 0), *[(PRINT, 0, 250)] * 4, (REPLACE, 1, 255)),
        "questions unanswered": _steps(*[(SAY, 1, 4), (TURN, 0, 0)] * 60),
    }

    fuzz("fuzz_clients.c", ["init/clients.c", "error.c"], seeds)
