"""`make soak`: runs Kaito on a real API server while users act and everything is killed in turn.

    python -m hack.soak --minutes 60 --seed 7 --folder build/soak

The exit code is 1 if an invariant was violated. The seed decides the steps. Their timing is that of the machine, so
that a run cannot be repeated exactly; the logs of all processes stay in the folder.
"""

import argparse
import asyncio
import random
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hack.cluster import binaries
from hack.envtest import ControlPlane
from hack.soak.cloud import LiveCloud
from hack.soak.kubelets import Kubelets
from hack.soak.live import LiveServer
from hack.soak.programs import ROOT, Programs
from hack.soak.run import SoakRun
from hack.soak.steps import KUBERNETES, describe_counts, process_faults
from kaito.api import Workspace
from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.runtime.client import connect
from kaito.runtime.testing.simulate import Scenario, StepKind
from kaito.runtime.testing.simulate.steps import draw_scenario
from kaito.simulation.faults import faults
from kaito.simulation.manifests import Object, name_of, section
from kaito.simulation.workspaces import PRESETS, actions

CONVERGE_SECONDS: Final = 3600.0
TEAR_DOWN_SECONDS: Final = 1800.0
WITHOUT_WEBHOOK: Final = frozenset({"webhook"})
"""Steps of the simulation that need the admission webhook, which no process of the soak test serves."""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = argparse.ArgumentParser(prog="python -m hack.soak", description=__doc__)
    result.add_argument("--minutes", type=float, default=60.0, help="time in which things happen (default: 60)")
    result.add_argument("--seed", type=int, default=1, help="decides the steps; odd seeds use NodeClaims (default: 1)")
    result.add_argument("--folder", type=Path, default=ROOT / "build" / "soak", help="data and logs of the processes")
    return result


async def soak(plane: ControlPlane, seed: int, minutes: float) -> SoakRun:
    """Runs one soak test on a control plane."""
    kind: type[Claim] = NodeClaim if seed % 2 else Machine
    claims = f"{kind.plural}.{kind.group()}"
    resources = ["workspaces.kaito.sh", claims, "nodes", "namespaces", "pods", "services", "configmaps"]
    resources += ["statefulsets.apps", "jobs.batch", "leases.coordination.k8s.io"]
    tls = ssl.create_default_context(cafile=str(plane.ca_file))
    server = LiveServer(plane.url, plane.token, tls, resources)
    problems: list[tuple[str, str]] = []
    async with connect(plane.kubeconfig, field_manager="user") as client:
        cloud = LiveCloud(client, seed, lambda invariant, text: problems.append((invariant, text)))
        kubelets = Kubelets(server, client, random.Random(seed))  # noqa: S311 - repeatable
        async with cloud.running() as url:
            programs = Programs(plane, url, "nodeclaim" if seed % 2 else "machine")
            run = SoakRun(server, client, cloud, kubelets, programs)
            run.refer(kind)
            with programs.running():
                await _play(run, seed, minutes * 60.0)
            for invariant, text in problems:
                run.fail(invariant, text)
            return run


async def _play(run: SoakRun, seed: int, seconds: float) -> None:
    kinds = [each for each in (*actions(), *faults(), *process_faults()) if each.name not in WITHOUT_WEBHOOK]
    scenario = draw_scenario(kinds, seed, seconds=seconds)
    run.say("soak", f"steps: {describe_counts(Counter(step.name for step in scenario.steps))}")
    loops = (run.world.server.follow(), run.controllers.work(), run.check(), run.supervise())
    async with asyncio.TaskGroup() as tasks:  # a part that fails ends the others
        started = [tasks.create_task(loop) for loop in loops]
        await _phases(run, scenario, kinds, seconds)
        for task in started:
            task.cancel()


def missing(run: SoakRun) -> list[str]:
    """Returns what is not as users want it, without the Workspaces that admission would have rejected."""
    rejected = {name_of(each) for each in run.stored("workspaces.kaito.sh").values() if is_rejected(each)}
    return [text for text in run.reference.missing() if not any(text.startswith(f"{name} ") for name in rejected)]


def is_rejected(workspace: Object) -> bool:
    """Whether the webhook rejects a Workspace that `bad_input` has created."""
    preset = section(workspace, "inference", "preset").get("name", PRESETS[0])
    selector = section(workspace, "resource", "labelSelector").get("matchLabels")
    return preset not in PRESETS or not selector


async def _phases(run: SoakRun, scenario: Scenario, kinds: Sequence[StepKind], seconds: float) -> None:
    await run.play(scenario, kinds, seconds)
    await run.until_nothing(lambda: missing(run), CONVERGE_SECONDS, "everything converges")
    run.say("soak", "everything is as wanted")
    await run.rest()
    run.say("user", "deletes everything")
    for workspace in run.world.list(Workspace):
        await run.client.delete(workspace)
    await run.until_nothing(run.reference.left, TEAR_DOWN_SECONDS, "every deletion ends")


def main() -> int:
    """Runs the command line."""
    options = parser().parse_args()
    binaries.build(lambda line: print(line, file=sys.stderr, flush=True), KUBERNETES)
    options.folder.mkdir(parents=True, exist_ok=True)
    with ControlPlane(options.folder.resolve()) as plane:
        for crd in sorted((ROOT / "config" / "crd").glob("*.sh_*.yaml")):
            command = ["kubectl", f"--kubeconfig={plane.kubeconfig}", "apply", "--server-side", "-f", str(crd)]
            subprocess.run(command, check=True, capture_output=True)
        wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]
        subprocess.run(["kubectl", f"--kubeconfig={plane.kubeconfig}", *wait], check=True, capture_output=True)
        run = asyncio.run(soak(plane, options.seed, options.minutes))
    starts = ", ".join(f"{each.name} {each.starts}" for each in run.programs.all)
    print(f"{run.now / 60:.0f} min, {run.world.server.events} events; starts: {starts}")
    print(f"violations: {len(run.violations)}")
    for violation in run.violations:
        print(f"  {violation}")
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
