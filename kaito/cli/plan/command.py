"""Runs `kaito plan`. Exit codes: 0 every Workspace is planned, 1 one is refused, 2 wrong usage or input."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TextIO

from kaito.planning.comparison import LiveComparison, connected
from kaito.planning.documents import Documents, InputError, read_documents, to_yaml
from kaito.planning.installed import installed_settings
from kaito.planning.planner import plan_workspace, refused_by_name
from kaito.planning.report import PlanReport, PriceQuestion, as_data
from kaito.planning.style import Style
from kaito.planning.text import render
from kaito.prices.azure_retail import AzureRetailPrices
from kaito.prices.book import PriceBook
from kaito.prices.cache import PriceCache, default_path
from kaito.prices.http import fetcher
from kaito.prices.table import PriceTable, PriceTableError, read_table
from kaito.runtime.clock import Clock, SystemClock
from kaito.runtime.errors import KaitoRuntimeError
from kaito.workspace.flags import Invocation, parse
from kaito.workspace.settings import NodeApi, WorkspaceSettings

PLANNED: Final = 0
REFUSED: Final = 1
USAGE: Final = 2


def run(arguments: argparse.Namespace) -> int:
    """Prints the plans; returns the exit code."""
    try:
        flags: list[str] = arguments.controller_flags
        if flags and not flags[0].startswith("-"):
            raise InputError(f"unexpected argument {flags[0]!r}: name files with -f")
        given = parse(flags, {})
        documents = read_documents(arguments.filename, sys.stdin)
        _check(documents, given.workspace, arguments)
        reports = asyncio.run(plan_documents(documents, given, arguments))
    except (InputError, PriceTableError) as error:
        sys.stderr.write(f"kaito plan: {error}\n")
        return USAGE
    except KaitoRuntimeError as error:
        sys.stderr.write(f"kaito plan: the cluster cannot be read: {error}\n")
        return USAGE
    write(reports, arguments.output, sys.stdout, compared=arguments.cluster)
    return REFUSED if any(report.is_refused for report in reports) else PLANNED


def _check(documents: Documents, settings: WorkspaceSettings, arguments: argparse.Namespace) -> None:
    """Checks that there is something to plan.

    Raises:
        InputError: there is not.
    """
    if not documents.workspaces:
        found = f"; found {', '.join(documents.ignored[:5])}" if documents.ignored else ""
        raise InputError(f"the files contain no Workspace and no InferenceSet{found}")
    if settings.node_api is NodeApi.BYO and not documents.nodes and not arguments.cluster:
        raise InputError(
            "--node-api=byo plans for existing nodes, and the files contain none: add the output of `kubectl get nodes "
            "-o yaml`, or use --cluster"
        )
    if (arguments.kubeconfig or arguments.context) and not arguments.cluster:
        raise InputError("--kubeconfig and --context have an effect only with --cluster")


async def plan_documents(
    documents: Documents, given: Invocation, arguments: argparse.Namespace, clock: Clock | None = None
) -> list[PlanReport]:
    """Plans every Workspace of the files.

    With a cluster, and without flags of the controller, the settings are those of the controller in the cluster. It is
    not connected if the presets of all Workspaces do not exist.

    Raises:
        InputError: the flags of the controller in the cluster are not those of this version.
        PriceTableError: the user's table of prices is not valid.
        KaitoRuntimeError: the cluster cannot be read.
    """
    async with AsyncExitStack() as stack:
        live: LiveComparison | None = None
        notes: tuple[str, ...] = ()
        if arguments.cluster and (refused := _refused_presets(documents, given)) is not None:
            return refused
        if arguments.cluster:
            client = await stack.enter_async_context(connected(arguments.kubeconfig, arguments.context))
            if not arguments.controller_flags:
                installed = await installed_settings(client)
                given, notes = installed.invocation, installed.notes
            live = LiveComparison(client, given.workspace)
        settings = given.workspace
        book = await stack.enter_async_context(_book(arguments, given.prices))
        region: str = arguments.region or settings.region
        question = PriceQuestion(book=book, region=region, capacity_type=arguments.capacity_type)
        reports: list[PlanReport] = []
        for source in documents.workspaces:
            if live is not None:
                live.notes[:] = notes  # those of the installation; the comparison adds those of one Workspace
            reports.append(
                await plan_workspace(source, documents, settings, question, live=live, clock=clock or SystemClock())
            )
        return reports


def _refused_presets(documents: Documents, given: Invocation) -> list[PlanReport] | None:
    """Returns the refusals if no Workspace names a preset that exists, and None otherwise.

    The instance types are not checked: which ones exist depends on the settings of the controller in the cluster.
    """
    settings = given.workspace.model_copy(update={"node_api": NodeApi.BYO})
    reports = [refused_by_name(source, settings) for source in documents.workspaces]
    refused = [report for report in reports if report is not None]
    return refused if len(refused) == len(reports) else None


@asynccontextmanager
async def _book(arguments: argparse.Namespace, own: PriceTable | None) -> AsyncGenerator[PriceBook]:
    own = read_table(arguments.prices) if arguments.prices is not None else own
    if not arguments.live_prices:
        yield PriceBook(own=own)
        return
    async with fetcher() as fetch:
        living = AzureRetailPrices(fetch, PriceCache(default_path("azure")), currency=arguments.currency.upper())
        yield PriceBook(own=own, living=living)


def write(reports: Sequence[PlanReport], output: str, out: TextIO, *, compared: bool) -> None:
    """Writes the plans in the format."""
    if output == "text":
        style = Style.of(out)
        out.write("\n\n".join(render(report, style, compared=compared) for report in reports) + "\n")
        return
    data: dict[str, Any] = {"plans": [as_data(report) for report in reports]}
    out.write(json.dumps(data, indent=2) + "\n" if output == "json" else to_yaml(data))
