"""Faults of the machine of a process: its wall clock jumps, the times of responses are missing, its token expires."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kaito.runtime.testing.simulate.steps import Arguments, StepKind

if TYPE_CHECKING:
    from kaito.runtime.testing.simulate.run import Run

OFFSET_SECONDS: Final = (-86400.0, -3600.0, -300.0, -20.0, 20.0, 300.0, 3600.0, 86400.0)
"""How wrong a clock may be; an hour is what a wrong time zone makes of it."""

WRONG_SECONDS: Final = (5.0, 60.0, 300.0, 1200.0)
"""How long a clock is wrong, dates are hidden, or a token is expired."""


def machine_faults(processes: Sequence[str]) -> list[StepKind]:
    """Returns the faults of machines.

    Args:
        processes: names of the processes, each of which has a machine.
    """

    def jump(rng: random.Random) -> Arguments:
        offset, seconds = rng.choice(OFFSET_SECONDS), rng.choice(WRONG_SECONDS)
        return {"process": rng.choice(processes), "offset": offset, "seconds": seconds}

    def lasting(rng: random.Random) -> Arguments:
        return {"process": rng.choice(processes), "seconds": rng.choice(WRONG_SECONDS)}

    return [
        StepKind(
            name="clock-jump",
            apply=_jump,
            draw=jump,
            is_fault=True,
            text="the wall clock of {process} jumps by {offset} s for {seconds} s",
        ),
        StepKind(
            name="hide-date",
            apply=_hide_date,
            draw=lasting,
            is_fault=True,
            text="a proxy removes the header Date of responses to {process} for {seconds} s",
        ),
        StepKind(
            name="expire-token",
            apply=_expire_token,
            draw=lasting,
            is_fault=True,
            text="the token of {process} is expired for {seconds} s: the API server answers 401",
        ),
    ]


async def _expire_token(run: "Run", *, process: str, seconds: float) -> None:
    target = run.processes[process]
    target.is_token_expired = True

    def renew() -> None:
        target.is_token_expired = False

    run.end_after(seconds, renew)


async def _hide_date(run: "Run", *, process: str, seconds: float) -> None:
    target = run.processes[process]
    run.hide_date(target, is_hidden=True)
    run.end_after(seconds, lambda: run.hide_date(target, is_hidden=False))


async def _jump(run: "Run", *, process: str, offset: float, seconds: float) -> None:
    target = run.processes[process]
    run.set_clock(target, offset)
    run.end_after(seconds, lambda: run.set_clock(target, 0.0))
