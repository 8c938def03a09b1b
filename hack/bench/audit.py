"""Counts the requests that reach a kube-apiserver by verb, resource and client, from its audit log."""

import json
from collections import Counter
from pathlib import Path

_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
"""


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
