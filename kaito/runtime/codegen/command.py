"""The command `kaito-runtime`.

kaito-runtime init NAME --kind GROUP/VERSION/KIND               create a project (`project.command`)
kaito-runtime add kind|webhook|conversion ...                   extend it
kaito-runtime models FILE... [--kind KIND] [--output kinds.py]  generate models of foreign kinds
kaito-runtime models --cluster [--kind KIND]                    the same from the definitions of a cluster

`-` reads the standard input: `kubectl get crd certificates.cert-manager.io -o yaml | kaito-runtime models -`.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kaito.runtime.codegen.definitions import DefinitionError, read_definitions
from kaito.runtime.codegen.project import command as project
from kaito.runtime.codegen.project.contents import ProjectProblem
from kaito.runtime.codegen.project.names import NameProblem
from kaito.runtime.codegen.source import module_source
from kaito.runtime.errors import KaitoRuntimeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, or 1 after a problem that is printed."""
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (DefinitionError, KaitoRuntimeError, NameProblem, OSError, ProjectProblem, UnicodeDecodeError) as error:
        sys.stderr.write(f"kaito-runtime: {error}\n")
        return 1
    return 0


def _models(parsed: argparse.Namespace) -> None:
    if parsed.cluster == bool(parsed.files):
        raise DefinitionError("name files with definitions, or --cluster, but not both")
    if parsed.cluster:
        from kaito.runtime.codegen.cluster import read_cluster  # imported here: files need no client

        reading = read_cluster(parsed.kubeconfig, parsed.context, kinds=parsed.kind, version=parsed.version)
        definitions = asyncio.run(reading)
    else:
        definitions = read_definitions(_texts(parsed.files), kinds=parsed.kind, version=parsed.version)
    source = module_source(definitions)
    if parsed.output is None:
        sys.stdout.write(source)
    else:
        parsed.output.write_text(source, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kaito-runtime", description="Tools for authors of operators.")
    commands = parser.add_subparsers(dest="command", required=True)
    models = commands.add_parser("models", help="generate typed models of the kinds of CustomResourceDefinitions")
    models.add_argument("files", nargs="*", help="files or folders with definitions, or - for the standard input")
    models.add_argument("--cluster", action="store_true", help="read the definitions of a cluster instead of files")
    models.add_argument("--kubeconfig", type=Path, help="cluster and credentials (default: as kubectl)")
    models.add_argument("--context", default="", help="context of the kubeconfig (default: its current one)")
    models.add_argument("--kind", action="append", default=[], help="a kind, or KIND.GROUP (default: all)")
    models.add_argument("--version", default="", help="version of the kinds (default: the one that is stored)")
    models.add_argument("--output", type=Path, help="file of the module (default: standard output)")
    models.set_defaults(run=_models)
    project.add_commands(commands.add_parser)
    return parser


def _texts(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields names and contents of the files; those of a folder in the order of their names."""
    for name in files:
        if name == "-":
            yield "the standard input", sys.stdin.read()
            continue
        path = Path(name)
        found = [path]
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix in {".yaml", ".yml", ".json"})
        for each in found:
            yield str(each), each.read_text(encoding="utf-8")
