"""Runs `kaito cost` and `kaito top`. Exit codes: 0 printed, 2 the cluster or the price table cannot be read."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TextIO

from kaito.cli.fleet.cost import format_cost
from kaito.cli.fleet.load import LoadReader
from kaito.cli.fleet.reader import FleetReader
from kaito.cli.fleet.top import CLEAR, format_top
from kaito.planning.documents import InputError
from kaito.planning.style import Style
from kaito.prices.book import PriceBook
from kaito.prices.table import PriceTableError, read_table
from kaito.runtime.client import Client, HttpTransport, find_cluster_config
from kaito.runtime.clock import SystemClock
from kaito.runtime.errors import KaitoRuntimeError
from kaito.workspace.costs import NodePrices

USAGE: Final = 2
MIN_INTERVAL_SECONDS: Final = 0.5


def run(arguments: argparse.Namespace) -> int:
    """Prints the costs, or the table of `kaito top` until interrupted; returns the exit code."""
    command: str = arguments.command
    try:
        if command == "top" and not arguments.interval >= MIN_INTERVAL_SECONDS:
            raise InputError(f"--interval is {arguments.interval:g}: use at least {MIN_INTERVAL_SECONDS:g} seconds")
        if arguments.all_namespaces and arguments.namespace:
            raise InputError("-A and -n exclude each other: use one of them")
        asyncio.run(_cost(arguments) if command == "cost" else _top(arguments))
    except (InputError, PriceTableError) as error:
        sys.stderr.write(f"kaito {command}: {error}\n")
        return USAGE
    except KaitoRuntimeError as error:
        sys.stderr.write(f"kaito {command}: the cluster cannot be read: {error}\n")
        return USAGE
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    return 0


async def _cost(arguments: argparse.Namespace) -> None:
    async with _reader(arguments, requests=not arguments.no_requests) as (reader, namespace):
        fleet = await reader.read(namespace, SystemClock().now())
    sys.stdout.write(format_cost(fleet, arguments, Style.of(sys.stdout)))


async def _top(arguments: argparse.Namespace) -> None:
    once = arguments.once or not sys.stdout.isatty()
    style = Style.of(sys.stdout)
    async with _reader(arguments, requests=True) as (reader, namespace):

        async def table() -> str:
            fleet = await reader.read(namespace, SystemClock().now())
            return format_top(fleet, style, key=arguments.sort, reverse=arguments.reverse)

        if once:
            sys.stdout.write(await table())
        else:
            await refresh(table, sys.stdout, arguments.interval)


async def refresh(table: Callable[[], Awaitable[str]], out: TextIO, interval_seconds: float) -> None:
    """Prints the table again and again until canceled; a failed read is reported, and the next one follows.

    Raises:
        KaitoRuntimeError: the first read failed.
    """
    shown = await table()
    while True:
        out.write(CLEAR + shown)
        out.flush()
        await asyncio.sleep(interval_seconds)
        try:
            shown = await table()
        except KaitoRuntimeError as error:
            out.write(f"the cluster cannot be read, next attempt in {interval_seconds:g} s: {error}\n")
            out.flush()
            await asyncio.sleep(interval_seconds)


@contextlib.asynccontextmanager
async def _reader(arguments: argparse.Namespace, *, requests: bool) -> AsyncGenerator[tuple[FleetReader, str]]:
    """Opens the reader, and yields it with the namespace to read; empty for all.

    Raises:
        PriceTableError: the user's table of prices is not valid.
        KaitoRuntimeError: no cluster is configured.
    """
    own = read_table(arguments.prices) if arguments.prices is not None else None
    config = await find_cluster_config(arguments.kubeconfig, arguments.context)
    transport = HttpTransport(config)
    try:
        client = Client(transport, field_manager="kaito-cost")
        load = LoadReader(transport) if requests else None
        reader = FleetReader(client, load, NodePrices(PriceBook(own=own)), arguments.region)
        namespace = "" if arguments.all_namespaces else arguments.namespace or config.namespace or "default"
        yield reader, namespace
    finally:
        await transport.close()
