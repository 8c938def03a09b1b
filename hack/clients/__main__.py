"""Command line of the checks with clients: see the docstring of the package."""

import argparse
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import hack.clients
from hack.clients import evaluation, load, vllm_suite
from hack.clients.comparison import Response, compare
from hack.clients.requests import Request, requests, send
from hack.clients.servers import Server, running
from hack.models.smollm2 import model_directory

KNOWN: Final = Path(__file__).with_name("known_differences.toml")
RESPONSE_SECONDS: Final = 600
CONNECTIONS: Final = 4


def main() -> int:
    """Runs one check; returns 1 if it has found a difference that is not known."""
    parser = argparse.ArgumentParser(description=hack.clients.__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("check", choices=sorted(CHECKS))
    parser.add_argument("--only", default="", help="compare: requests whose name contains this text")
    for name in ("ours", "vllm"):
        parser.add_argument(f"--{name}", metavar="URL", help="a running server instead of a new one")
    parser.add_argument(
        "--output", type=Path, help="directory for logs and results, where an interrupted run continues"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    with ExitStack() as stack:
        directory = arguments.output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clients-")))
        directory.mkdir(parents=True, exist_ok=True)
        found = CHECKS[arguments.check](arguments, directory.resolve())
    print(f"{found} unexpected" if found else "as expected")
    return 1 if found else 0


def _end(*_: object) -> None:
    """Unwinds the stack at SIGTERM, so that the servers end as well: each has its own session."""
    sys.exit("terminated")


def _server(stack: ExitStack, arguments: argparse.Namespace, name: str, directory: Path) -> Server:
    url: str | None = getattr(arguments, name)
    if url is not None:
        return Server(name, url, str(model_directory()))
    return stack.enter_context(running(name, directory))


def _evaluate(arguments: argparse.Namespace, directory: Path) -> int:
    for name in ("ours", "vllm"):
        if evaluation.is_done(directory, name):
            continue
        with ExitStack() as stack:
            evaluation.evaluate(_server(stack, arguments, name, directory), directory)
    return evaluation.report(directory)


def _load(arguments: argparse.Namespace, directory: Path) -> int:
    with ExitStack() as stack:
        wrong = load.measure(_server(stack, arguments, "ours", directory), directory)
    for line in wrong:
        print(line)
    return len(wrong)


def _compare(arguments: argparse.Namespace, directory: Path) -> int:
    selected = [request for request in requests() if arguments.only in request.name]
    answers: list[list[Response]] = []
    for name in ("ours", "vllm"):
        with ExitStack() as stack:
            answers.append(_answers(_server(stack, arguments, name, directory), selected))
    found = {
        request.name: "; ".join(compare(ours, theirs)) for request, ours, theirs in zip(selected, *answers, strict=True)
    }
    return _report(found, "requests")


def _answers(server: Server, selected: Iterable[Request]) -> list[Response]:
    def answer(request: Request) -> Response:
        return send(server.url, server.model, request, RESPONSE_SECONDS)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(answer, selected))


def _vllm_tests(arguments: argparse.Namespace, directory: Path) -> int:
    outcomes: list[dict[str, str]] = []
    for name in ("ours", "vllm"):
        results = vllm_suite.results_file(directory, name)
        for _ in range(vllm_suite.RUNS):
            if vllm_suite.is_complete(results):
                break
            with ExitStack() as stack:
                server = _server(stack, arguments, name, directory)
                vllm_suite.prepare(directory, server.model)
                vllm_suite.run(server, directory)
        if not vllm_suite.is_complete(results):
            raise SystemExit(f"the tests against {name} did not end: see the logs in {directory}, and run it again")
        outcomes.append(vllm_suite.outcomes(results))
    ours, theirs = outcomes
    for name, outcome in (("ours", ours), ("vllm", theirs)):
        print(f"{name}: {sum(not failure for failure in outcome.values())} of {len(outcome)} tests pass")
    return _report({name: failure for name, failure in ours.items() if not theirs.get(name, "")}, "vllm_tests")


def _report(found: Mapping[str, str], table: str) -> int:
    """Prints differences that are not known, and known ones that are not found; `found` is empty without one."""
    known: dict[str, str] = tomllib.loads(KNOWN.read_text(encoding="utf-8"))[table]
    print(f"{sum(map(bool, found.values()))} of {len(found)} differ")
    unexpected = {name: text for name, text in found.items() if text and name not in known}
    unexpected |= {name: "is equal, but listed as different" for name in known if found.get(name) == ""}
    for name, text in unexpected.items():
        print(f"* {name}: {text}")
    return len(unexpected)


CHECKS: Final = {"evaluate": _evaluate, "compare": _compare, "vllm-tests": _vllm_tests, "load": _load}


if __name__ == "__main__":
    raise SystemExit(main())
