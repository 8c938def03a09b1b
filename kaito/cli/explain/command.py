"""Runs `kaito explain`. Exit codes: 0 the Workspace is ready or finished, 1 it is not, 2 it cannot be read."""

import argparse
import asyncio
import sys
from typing import Final

from kaito.cli.explain.output import as_data, render
from kaito.cli.explain.reader import SituationReader, WorkspaceMissing, namespace_and_name
from kaito.diagnosis import Diagnosis, diagnose
from kaito.planning.documents import InputError, to_yaml
from kaito.planning.style import Style, terminal_width
from kaito.runtime.client import Client, HttpTransport, find_cluster_config
from kaito.runtime.clock import SystemClock
from kaito.runtime.errors import KaitoRuntimeError

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


async def _explain(arguments: argparse.Namespace) -> Diagnosis:
    """Reads the cluster and returns the diagnosis.

    Raises:
        InputError: the arguments contradict each other.
        WorkspaceMissing: the Workspace does not exist.
        KaitoRuntimeError: the cluster cannot be read.
    """
    namespace, name = namespace_and_name(arguments.workspace, arguments.namespace)
    config = await find_cluster_config(arguments.kubeconfig, arguments.context)
    transport = HttpTransport(config)
    try:
        client = Client(transport, field_manager=FIELD_MANAGER)
        reader = SituationReader(client)
        situation = await reader.read(name, namespace or config.namespace or "default", SystemClock().now())
    finally:
        await transport.close()
    return diagnose(situation)


def _format(diagnosis: Diagnosis, output: str) -> str:
    if output == "text":
        now = SystemClock().now()
        return render(diagnosis, Style.of(sys.stdout), now=now, width=terminal_width(sys.stdout))
    import json

    data = as_data(diagnosis)
    return json.dumps(data, indent=2) + "\n" if output == "json" else to_yaml(data)
