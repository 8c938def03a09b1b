"""The whole system as processes: a real API server, the ARM simulator and both binaries, each of which can be killed.

For the process tests (`test/e2e`) and for trying things by hand. Nodes come from the simulator; stateful sets are made
ready by `hack.bench.driver`, so that no pod needs to run.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from hack.arm import ARM_ENVIRONMENT
from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port

BINARIES = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


@dataclass(slots=True)
class Program:
    """One process that can be killed and started again."""

    name: str
    command: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict[str, str])
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; its output goes to the end of the log."""
        with self.log.open("ab") as log:
            env = {**os.environ, **self.env, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=env)

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes longer than fifteen seconds."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class Stack:
    """Running programs by name, and the simulator's state."""

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        node_api: str,
        arm_port: int,
        provisioner_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
    ) -> None:
        self.kubeconfig = kubeconfig
        self.arm_url = f"http://127.0.0.1:{arm_port}"
        self.folder = folder
        common = [f"--kubeconfig={kubeconfig}", "--metrics-bind-address=0", "--leader-elect=false"]
        health = "--health-probe-bind-address=0"
        simulator = [sys.executable, "-m", "kaito.cloud.azure.simulator", f"--port={arm_port}", "--speed=120"]
        controller = [str(BINARIES / "workspace-controller"), *common, health, f"--node-api={node_api}"]
        controller += controller_flags
        provisioner = [str(BINARIES / "gpu-provisioner"), *common, health, f"--node-api={node_api}"]
        provisioner += ["--azure-credential=fake", "--poll-interval=1s", "--quota-retry=2s"]
        provisioner += provisioner_flags
        driver = [sys.executable, "-m", "hack.bench.driver", str(kubeconfig), "workloads"]
        self.programs = {
            "simulator": self._program("simulator", [*simulator, f"--kubeconfig={kubeconfig}"]),
            "driver": self._program("driver", driver),
            "gpu-provisioner": self._program("gpu-provisioner", [*provisioner, f"--arm-endpoint={self.arm_url}"]),
            "workspace-controller": self._program("workspace-controller", [*controller, "--webhook=false"]),
        }

    def _program(self, name: str, command: list[str]) -> Program:
        return Program(name, command, self.folder / f"{name}.log", ARM_ENVIRONMENT)

    async def start(self) -> None:
        """Starts everything, the simulator first."""
        self.programs["simulator"].start()
        async with asyncio.timeout(START_SECONDS):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    await self.admin("GET", "state")
                    break
                await asyncio.sleep(0.1)
        for name in ("driver", "gpu-provisioner", "workspace-controller"):
            self.programs[name].start()

    def stop(self) -> None:
        """Ends everything, in reverse order."""
        for program in reversed(self.programs.values()):
            program.stop()

    async def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Queries or scripts the simulated cloud (`state`, `faults`, `knobs`, …)."""
        async with aiohttp.ClientSession() as session:
            url = f"{self.arm_url}/__admin/{path}"
            async with session.request(method, url, json=body) as answer:
                answer.raise_for_status()
                return await answer.json() if answer.content_type == "application/json" else await answer.text()

    async def pools(self) -> dict[str, str]:
        """Agent pools of the cloud and their provisioning state."""
        state = await self.admin("GET", "state")
        return {pool["name"]: pool["state"] for pool in state["pools"]}

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl against the API server; its output."""
        return run_kubectl(self.kubeconfig, *arguments, stdin=stdin, check=check)


def run_kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Runs kubectl; its output, with that on stderr unless checked.

    Raises:
        RuntimeError: kubectl failed, and `check` is set.
    """
    command = ["kubectl", f"--kubeconfig={kubeconfig}", *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if check and result.returncode:
        message = f"{' '.join(arguments)}: {result.stderr}"
        raise RuntimeError(message)
    return result.stdout + ("" if check else result.stderr)


@contextlib.asynccontextmanager
async def stack(
    node_api: str = "machine",
    *,
    provisioner_flags: Sequence[str] = (),
    controller_flags: Sequence[str] = (),
    prepare: Callable[[Stack], None] | None = None,
) -> AsyncGenerator[Stack]:
    """A control plane with CRDs and every program running; `prepare` is called before the programs start."""
    with ControlPlane() as control_plane:
        running = Stack(
            control_plane.kubeconfig, control_plane.folder, node_api, free_port(), provisioner_flags, controller_flags
        )
        for crd in sorted((ROOT / "config" / "crd").glob("*.sh_*.yaml")):
            running.kubectl("apply", "--server-side", "-f", str(crd))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        if prepare is not None:
            prepare(running)
        try:
            await running.start()
            yield running
        finally:
            running.stop()


async def until(condition: Any, what: str, seconds: float = 60.0) -> Any:
    """Polls until the condition gives something true; what it gave.

    Raises:
        TimeoutError: it never did; the message names what was waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        if time.monotonic() > deadline:
            message = f"waited {seconds:.0f} s for {what}"
            raise TimeoutError(message)
        await asyncio.sleep(0.2)
