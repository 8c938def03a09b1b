"""Claims that are lost again and again on a real API server, both binaries as processes: the pauses grow (A.1)."""

import asyncio
import json
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from test.support.stack import Stack, stack

MANIFEST = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi}
resource:
  instanceType: Standard_NC6s_v3
  labelSelector: {matchLabels: {apps: phi}}
inference:
  preset: {name: phi-3-mini-4k-instruct}
"""
CAPACITY = "insufficient capacity, no on-demand capacity of Standard_NC6s_v3 in any zone"


def items(running: Stack, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.kubectl("get", kind, "-o", "json"))["items"]
    return found


def ready(running: Stack) -> dict[str, str]:
    (workspace,) = items(running, "workspaces")
    found = [c for c in workspace.get("status", {}).get("conditions", []) if c["type"] == "WorkspaceReady"]
    return found[0] if found else {"status": "Unknown", "reason": "", "message": ""}


def instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def gaps(born: dict[str, str]) -> list[float]:
    times = sorted(instant(text) for text in born.values())
    return [(later - earlier).total_seconds() for earlier, later in pairwise(times)]


def check_promise(condition: dict[str, str]) -> None:
    """The next attempt, where the condition names one, is in the future."""
    if condition["reason"] == "ReplacementPending":
        promised = instant(condition["message"].rsplit(" ", 1)[-1])
        assert (promised - datetime.now(UTC)).total_seconds() > -3, condition


@pytest.mark.timeout(300)
async def test_nodes_that_never_join_are_bought_with_growing_pauses() -> None:
    async with stack(provisioner_flags=["--registration-timeout=5s"]) as running:
        await running.admin("PUT", "knobs", {"never_join": True})
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        born: dict[str, str] = {}
        most_pools, end = 0, time.monotonic() + 160
        while time.monotonic() < end and len(born) < 3:
            born |= {m["metadata"]["name"]: m["metadata"]["creationTimestamp"] for m in items(running, "machines")}
            most_pools = max(most_pools, len(await running.pools()))
            check_promise(ready(running))
            await asyncio.sleep(1)
        assert len(born) == 3, born
        first, second = gaps(born)
        assert first >= 30, born
        assert second >= 60, born
        assert most_pools == 1
        assert "2 times in a row" in ready(running)["message"]
        assert "no node joined within 5 s" in ready(running)["message"]


@pytest.mark.timeout(300)
async def test_a_karpenter_that_deletes_claims_at_once_causes_no_loop() -> None:
    """Karpenter core without capacity deletes the claim at once, and only leaves an Event."""
    async with stack("nodeclaim") as running:
        running.programs["gpu-provisioner"].stop()
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        born: dict[str, str] = {}
        end = time.monotonic() + 125
        while time.monotonic() < end:
            for claim in items(running, "nodeclaims"):
                name = claim["metadata"]["name"]
                born[name] = claim["metadata"]["creationTimestamp"]
                event = {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"generateName": f"{name}.", "namespace": "default"},
                    "involvedObject": {
                        "apiVersion": "karpenter.sh/v1",
                        "kind": "NodeClaim",
                        "name": name,
                        "uid": claim["metadata"]["uid"],
                    },
                    "type": "Warning",
                    "reason": "InsufficientCapacityError",
                    "message": f"NodeClaim {name} event: {CAPACITY}",
                    "firstTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "lastTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "source": {"component": "karpenter"},
                }
                running.kubectl("delete", "nodeclaim", name, "--wait=false", check=False)
                running.kubectl("create", "-f", "-", stdin=json.dumps(event))
            if ready(running)["reason"]:
                check_promise(ready(running))
            await asyncio.sleep(0.5)
        assert len(born) == 3, born
        first, second = gaps(born)
        assert first >= 30, born
        assert second >= 60, born
        condition = ready(running)
        assert condition["status"] == "False"
        assert CAPACITY in condition["message"]
        assert "3 times in a row" in condition["message"]
