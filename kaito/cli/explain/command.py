"""Runs `kaito explain`. Exit codes: 0 the Workspace or set is ready or finished, 1 it is not, 2 it cannot be read."""

import argparse
import asyncio
import sys
from typing import Final

from kaito.cli.explain.inference_set import SetDiagnosis, render_set, set_data
from kaito.cli.explain.output import as_data, render
from kaito.cli.explain.reader import SituationReader, WorkspaceMissing, namespace_and_name
from kaito.diagnosis import Diagnosis, diagnose
from kaito.planning.documents import InputError, to_yaml
from kaito.planning.style import Style, terminal_width
from kaito.runtime.client import Client, HttpTransport, find_cluster_config
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.errors import Forbidden, KaitoRuntimeError

HEALTHY: Final = 0
NOT_READY: Final = 1
USAGE: Final = 2

FIELD_MANAGER: Final = "kaito-explain"


def run(arguments: argparse.Namespace) -> int:
    """Prints the diagnosis; returns the exit code."""
    try:
        diagnosis = asyncio.run(_explain(arguments))
    except (InputError, WorkspaceMissing) as error:
        sys.stderr.write(f"kaito explain: {error}\n")
        return USAGE
    except KaitoRuntimeError as error:
        sys.stderr.write(f"kaito explain: the cluster cannot be read: {error}\n")
        return USAGE
    sys.stdout.write(_format(diagnosis, arguments.output))
    return HEALTHY if diagnosis.is_healthy else NOT_READY


async def _explain(arguments: argparse.Namespace) -> Diagnosis | SetDiagnosis:
    """Reads the cluster and returns the diagnosis.

    Raises:
        InputError: the arguments contradict each other.
        WorkspaceMissing: the Workspace or InferenceSet does not exist.
        KaitoRuntimeError: the cluster cannot be read.
    """
    namespace, name, is_set = namespace_and_name(arguments.workspace, arguments.namespace)
    config = await find_cluster_config(arguments.kubeconfig, arguments.context)
    transport = HttpTransport(config)
    try:
        reader = SituationReader(Client(transport, field_manager=FIELD_MANAGER))
        return await explain(reader, name, namespace or config.namespace or "default", is_set=is_set)
    finally:
        await transport.close()


async def explain(
    reader: SituationReader, name: str, namespace: str, *, is_set: bool, clock: Clock | None = None
) -> Diagnosis | SetDiagnosis:
    """Returns the diagnosis of a Workspace or InferenceSet.

    A name that no Workspace has may be that of a set.

    Raises:
        WorkspaceMissing: neither exists.
        KaitoRuntimeError: the cluster cannot be read.
    """
    now = (clock or SystemClock()).now()
    missing = WorkspaceMissing(f"InferenceSet {namespace}/{name} does not exist")
    if not is_set:
        try:
            return diagnose(await reader.read(name, namespace, now))
        except WorkspaceMissing as error:
            missing = error
    try:
        found = await reader.read_set(name, namespace, now)
    except Forbidden:
        if is_set:
            raise
        found = None  # the user asked for a Workspace
    if found is None:
        raise missing
    return SetDiagnosis(
        inference_set=found.inference_set,
        workspaces=found.workspaces,
        waiting=found.waiting,
        diagnoses=[diagnose(each) for each in found.situations],
    )


def _format(diagnosis: Diagnosis | SetDiagnosis, output: str) -> str:
    if output == "text":
        now, style, width = SystemClock().now(), Style.of(sys.stdout), terminal_width(sys.stdout)
        if isinstance(diagnosis, SetDiagnosis):
            return render_set(diagnosis, style, now=now, width=width)
        return render(diagnosis, style, now=now, width=width)
    import json

    data = set_data(diagnosis) if isinstance(diagnosis, SetDiagnosis) else as_data(diagnosis)
    return json.dumps(data, indent=2) + "\n" if output == "json" else to_yaml(data)
