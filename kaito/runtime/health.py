"""Health checks of a process, with responses like those of Kubernetes components.

`/healthz` is for liveness, `/readyz` for readiness. A check is a function that returns None if it passes; it fails by
returning the reason or by raising. `/healthz` runs all checks, `/healthz/<name>` one, `?exclude=<name>` all others, and
`?verbose` lists every result. Responses contain the reasons: unlike in Kubernetes components, which hide them, because
the health port is for the kubelet only.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from kaito.runtime.errors import ConfigurationError

Check = Callable[[], str | None]
"""Returns the reason of a failure, or None. Must not block."""


@dataclass(frozen=True, slots=True)
class Report:
    """The response to a probe."""

    healthy: bool
    text: str

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return 200 if self.healthy else 500


class Checks:
    """The checks of one path.

    Args:
        path: `healthz` or `readyz`, for the responses.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._checks: dict[str, Check] = {}

    def add(self, name: str, check: Check) -> None:
        """Adds a check.

        Raises:
            ConfigurationError: the name is taken, or cannot be part of a URL.
        """
        if not name or "/" in name or name in self._checks:
            message = f"{self.path} check {name!r}: names are unique and without slashes"
            raise ConfigurationError(message)
        self._checks[name] = check

    def remove(self, name: str) -> None:
        """Removes a check, if it exists."""
        self._checks.pop(name, None)

    def report(self, *, verbose: bool = False, exclude: Collection[str] = ()) -> Report:
        """Runs all checks except the excluded ones."""
        results = {name: _run(check) for name, check in self._checks.items() if name not in exclude}
        unknown = sorted(set(exclude) - set(self._checks))
        healthy = not any(results.values())
        if healthy and not verbose:
            return Report(healthy=True, text="ok")
        lines = [*_lines(results), *(f"warn: no check is named {name}" for name in unknown)]
        lines.append(f"{self.path} check {'passed' if healthy else 'failed'}")
        return Report(healthy=healthy, text="\n".join(lines) + "\n")

    def report_one(self, name: str) -> Report | None:
        """Runs one check; None if there is none of that name."""
        check = self._checks.get(name)
        if check is None:
            return None
        reason = _run(check)
        return Report(healthy=reason is None, text="ok" if reason is None else f"{name} failed: {reason}\n")


def _run(check: Check) -> str | None:
    try:
        return check() or None
    except Exception as error:  # noqa: BLE001 - a check that raises has failed
        return f"{type(error).__name__}: {error}"


def _lines(results: Mapping[str, str | None]) -> Iterator[str]:
    for name, reason in results.items():
        yield f"[+]{name} ok" if reason is None else f"[-]{name} failed: {reason}"
