"""Health checks with a meaning, answered the way Kubernetes' own components answer.

`/healthz` asks whether the process should live, `/readyz` whether it should get traffic. Each check is a function that
returns nothing when all is well and raises, or returns a sentence, when it is not. `/healthz` runs all of them,
`/healthz/<name>` one, `?exclude=<name>` all but some, `?verbose` lists every result. The address is the kubelet's
business, not the world's: reasons are shown, because a probe that fails without one costs somebody an hour.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from kaito.runtime.errors import ConfigurationError

Check = Callable[[], str | None]
"""Returns a sentence when something is wrong. Must not block."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to a probe."""

    healthy: bool
    text: str

    @property
    def status(self) -> int:
        """The HTTP status."""
        return 200 if self.healthy else 500


class Checks:
    """The checks behind one path.

    Args:
        path: `healthz` or `readyz`, for the texts.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Run this check from now on.

        Raises:
            ConfigurationError: the name is taken, or cannot be part of a URL.
        """
        if not name or "/" in name or name in self._checks:
            message = f"{self.path} check {name!r}: names are unique and without slashes"
            raise ConfigurationError(message)
        self._checks[name] = check

    def remove(self, name: str) -> None:
        """Run it no more."""
        self._checks.pop(name, None)

    def report(self, *, verbose: bool = False, exclude: Collection[str] = ()) -> Report:
        """Run every check but the excluded ones."""
        results = {name: _run(check) for name, check in self._checks.items() if name not in exclude}
        unknown = sorted(set(exclude) - set(self._checks))
        healthy = not any(results.values())
        if healthy and not verbose:
            return Report(healthy=True, text="ok")
        lines = [*_lines(results), *(f"warn: no check is named {name}" for name in unknown)]
        lines.append(f"{self.path} check {'passed' if healthy else 'failed'}")
        return Report(healthy=healthy, text="\n".join(lines) + "\n")

    def report_one(self, name: str) -> Report | None:
        """Run one check; None when there is none of that name."""
        check = self._checks.get(name)
        if check is None:
            return None
        wrong = _run(check)
        return Report(healthy=wrong is None, text="ok" if wrong is None else f"{name} failed: {wrong}\n")


def _run(check: Check) -> str | None:
    try:
        return check() or None
    except Exception as error:  # noqa: BLE001 - a check that cannot even run is a failed one
        return f"{type(error).__name__}: {error}"


def _lines(results: Mapping[str, str | None]) -> Iterator[str]:
    for name, wrong in results.items():
        yield f"[+]{name} ok" if wrong is None else f"[-]{name} failed: {wrong}"
