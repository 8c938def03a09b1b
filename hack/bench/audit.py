"""Counts the requests that reach a kube-apiserver by verb, resource and client, from its audit log."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from hack.bench.report import Column, Figures, Report

_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
"""


_PREFIX = "requests "


class AuditLog:
    """The audit log of a control plane.

    Args:
        folder: an existing folder for the policy and the log.
    """

    def __init__(self, folder: Path) -> None:
        self._policy, self._log = folder / "audit-policy.yaml", folder / "audit.log"
        self._policy.write_text(_POLICY)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The flags of kube-apiserver."""
        return (f"--audit-policy-file={self._policy}", f"--audit-log-path={self._log}", "--audit-log-mode=blocking")

    def requests(self, agent: str) -> Counter[str]:
        """The completed requests of clients whose User-Agent contains `agent`, without watches."""
        found: Counter[str] = Counter()
        for line in self._log.read_text().splitlines():
            event = json.loads(line)
            if event["verb"] == "watch" or agent not in event.get("userAgent", ""):
                continue
            target: dict[str, str] = event.get("objectRef") or {}
            parts = (target.get("resource", event["requestURI"]), target.get("subresource"))
            found[f"{event['verb']} {'/'.join(filter(None, parts))}"] += 1
        return found


def requests_per_object(requests: Mapping[str, int], count: int) -> Figures:
    """The requests for each of `count` objects, as figures of a row for `requests_report`."""
    return {f"{_PREFIX}{kind}": number / count for kind, number in sorted(requests.items())}


def requests_report(report: Report, about: str) -> Report:
    """The figures by verb and resource in the rows of a report."""
    kinds = sorted({key for row in report.rows.values() for key in row if key.startswith(_PREFIX)})
    return Report(
        name=f"{report.name}-requests",
        about=about,
        settings=report.settings,
        columns=[Column(kind, kind.removeprefix(_PREFIX), "{:.2f}") for kind in kinds],
        rows=report.rows,
    )
