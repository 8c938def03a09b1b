"""Measures the start of both controllers on an empty cluster, from the start of the process until `/readyz` is 200,
beside an earlier commit.

The program of this tree and that of the earlier commit take turns on one real kube-apiserver with etcd, with default
flags but without leader election. The modules are compiled before the first turn. CPU is that of the process until
`/readyz` is 200, which on a busy machine is more reliable than the wall time.
"""

import argparse
import asyncio
import compileall
import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.bench.compare import BASELINE, ROOT, checked_out, ratios, ratios_report
from hack.bench.definitions import install_definitions
from hack.bench.process import cost_of
from hack.bench.report import Column, Figures, Report, in_turn, medians
from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port
from kaito.local.cloud import CLOUD_ENVIRONMENT

TIMEOUT_SECONDS = 120.0
PROGRAMS = {
    "workspace-controller": ["--webhook=false"],
    "gpu-provisioner": ["--node-api=nodeclaim", "--azure-credential=fake", "--arm-endpoint=http://127.0.0.1:9"],
}
"""The programs and their further flags."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One form of one program."""

    program: str
    tree: Path


COLUMNS = (
    Column("ready_seconds", "ready after", "{:.2f} s"),
    Column("cpu_seconds", "CPU", "{:.2f} s"),
    Column("peak_rss_mib", "peak RSS", "{:.0f} MiB"),
)


def turn(control_plane: ControlPlane, peer: Peer) -> Figures:
    """One start of one program."""
    probes, metrics = free_port(), free_port()
    command = [sys.executable, str(peer.tree / "cmd" / peer.program), f"--kubeconfig={control_plane.kubeconfig}"]
    command += ["--leader-elect=false", f"--health-probe-bind-address=127.0.0.1:{probes}"]
    command += [f"--metrics-bind-address=127.0.0.1:{metrics}", *PROGRAMS[peer.program]]
    env = {**os.environ, **CLOUD_ENVIRONMENT, "PYTHONPATH": str(peer.tree)}
    with (control_plane.folder / f"{peer.program}.log").open("ab") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=peer.tree)
        try:
            _until_ready(process, f"http://127.0.0.1:{probes}/readyz")
            seconds, cost = time.monotonic() - started, cost_of(process.pid)
        finally:
            process.terminate()
            process.wait(60)
    return {"ready_seconds": seconds, "cpu_seconds": cost.cpu_seconds, "peak_rss_mib": cost.peak_rss_mib}


def _until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            message = f"the program ended with status {process.returncode}"
            raise RuntimeError(message)
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.01)
    message = f"not ready within {TIMEOUT_SECONDS:.0f} s"
    raise TimeoutError(message)


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Starts every program of both trees in turn."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds for each program")
    parser.add_argument("--baseline", default=BASELINE, help="the commit to compare with")
    options = parser.parse_args(arguments)
    rows: dict[str, Figures] = {}
    compared: dict[str, Figures] = {}
    all_turns: dict[str, Sequence[Figures]] = {}
    baseline = f"commit {options.baseline}"
    with checked_out(options.baseline) as tree, ControlPlane() as control_plane:
        for each in (tree, ROOT):
            compileall.compile_dir(each / "kaito", quiet=2)
        asyncio.run(install_definitions(control_plane))
        for program in PROGRAMS:
            peers = {baseline: Peer(program, tree), "this tree": Peer(program, ROOT)}

            async def one(name: str, _run: int, peers: dict[str, Peer] = peers) -> Figures:
                return turn(control_plane, peers[name])

            turns = asyncio.run(in_turn(peers, options.runs, one))
            for name, row in medians(turns).items():
                rows[f"{program}, {name}"] = row
                all_turns[f"{program}, {name}"] = turns[name]
            compared[program] = ratios(turns, "this tree", baseline, COLUMNS)
    settings = {"runs": options.runs, "baseline": options.baseline}
    report = Report(
        name="start",
        about="from the start of the process until /readyz is 200, on an empty cluster",
        settings=settings,
        columns=COLUMNS,
        rows=rows,
        turns=all_turns,
    )
    return [report, ratios_report(report, baseline, COLUMNS, compared)]
