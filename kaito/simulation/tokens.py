"""Expired tokens of Azure: it answers 401 to one process, for some requests or for a while.

A single 401 must have no effect: the process renews its token, and sends the same request again.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast, final

from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse
from kaito.runtime.testing.simulate import Finding, Process, Run, StepKind
from kaito.simulation.manifests import Object

REPEATED_SECONDS: Final = 10.0
"""How long a process may take to repeat a request after a 401."""

MANY: Final = 1_000_000
"""Number of requests of a token that is not renewed."""

_EXPIRED: Final[Object] = {
    "error": {
        "code": "ExpiredAuthenticationToken",
        "message": "The access token expiry UTC time is earlier than current UTC time.",
    }
}


@final
@dataclass(slots=True)
class _Expiry:
    """The expired token of a process."""

    left: int
    """Requests that still get a 401."""


@final
class Tokens:
    """The tokens of one run, by the name of the process."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._expired: dict[str, _Expiry] = {}
        self._unrepeated: dict[tuple[str, str, str, str], Process] = {}
        """Requests with a single 401, by process, its start, method and path."""

    def expire(self, process: str, times: int, seconds: float) -> None:
        """Lets the next requests of a process fail, for at most so many seconds."""
        expiry = self._expired[process] = _Expiry(times or MANY)

        def renew() -> None:
            if self._expired.get(process) is expiry:
                del self._expired[process]

        self._run.end_after(seconds, renew, disturbs=0.0 if times == 1 else None)

    def reject(self, process: Process, request: ArmRequest) -> ArmResponse | None:
        """Returns the response to a request with an expired token; None if the token is valid."""
        key = (process.name, process.identity, request.method, request.path)
        is_repeated = self._unrepeated.pop(key, None) is not None
        expiry = self._expired.get(process.name)
        if expiry is None or not expiry.left:
            return None
        expiry.left -= 1
        if not expiry.left and not is_repeated:
            self._unrepeated[key] = process
        return ArmResponse(401, _EXPIRED, {"WWW-Authenticate": 'Bearer error="invalid_token"'})

    def check(self) -> Iterator[Finding]:
        """Returns the requests that were not repeated after a 401."""
        for key, process in list(self._unrepeated.items()):
            name, identity, method, path = key
            if process.identity != identity or not process.is_alive or not process.holds_lease():
                del self._unrepeated[key]
                continue
            text = f"{name} has sent {method} {path} with an expired token, and has not repeated it"
            yield Finding("an expired token is renewed", text, REPEATED_SECONDS)


def token_faults(processes: list[str]) -> list[StepKind]:
    """Returns the kind of fault.

    Args:
        processes: names of the processes that send requests to Azure.
    """

    def draw(rng: random.Random) -> Object:
        times = rng.choice((1, 1, 2, 0))
        return {"process": rng.choice(processes), "times": times, "seconds": rng.choice((60.0, 300.0, 900.0))}

    return [
        StepKind(
            name="azure-token",
            apply=expire_token,
            draw=draw,
            weight=1.5,
            is_fault=True,
            text="the token of {process} for Azure is expired for {times} requests (0: all), for {seconds} s at most",
        )
    ]


async def expire_token(run: Run, *, process: str, times: int, seconds: float) -> None:
    """Lets Azure answer 401 to a process."""
    cast("Any", run.simulation).cloud.tokens.expire(process, times, seconds)
