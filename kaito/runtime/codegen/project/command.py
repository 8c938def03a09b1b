"""The commands `kaito-runtime init` and `kaito-runtime add`.

kaito-runtime init site-operator --kind example.com/v1/Site
kaito-runtime add kind example.com/v1/Page
kaito-runtime add webhook Page
kaito-runtime add conversion Page --version v1beta1
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kaito.runtime.codegen.project.changes import addition, new_project
from kaito.runtime.codegen.project.contents import Project, ProjectProblem, read_project
from kaito.runtime.codegen.project.names import check_name

NEXT_STEPS = """\
{name} is in {folder}. Next:
  cd {folder}
  python3 -m venv .venv && . .venv/bin/activate
  pip install -e '.[dev]'
  make test
"""


def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds `init` and `add` to the parser of `kaito-runtime`, with the method that adds one command."""
    init = add_parser("init", help="create the project of an operator")
    init.add_argument("name", help="name of the operator, for example site-operator")
    init.add_argument("--kind", required=True, help="GROUP/VERSION/KIND, for example example.com/v1/Site")
    init.add_argument("--plural", default="", help="plural of the kind in lower case (default: the English plural)")
    init.add_argument("--directory", type=Path, help="folder of the project (default: the name)")
    init.set_defaults(run=_init)

    add = add_parser("add", help="add a kind, a webhook or a conversion to a project")
    things = add.add_subparsers(dest="thing", required=True)
    kind = things.add_parser("kind", help="add a kind with its controller")
    kind.add_argument("kind", help="GROUP/VERSION/KIND, for example example.com/v1/Page")
    kind.add_argument("--plural", default="", help="plural of the kind in lower case (default: the English plural)")
    kind.set_defaults(change=_with_kind)
    webhook = things.add_parser("webhook", help="add an admission webhook of a kind")
    webhook.add_argument("kind", help="a kind of the project, for example Page")
    webhook.set_defaults(change=_with_webhook)
    conversion = things.add_parser("conversion", help="add a version of a kind, and its conversion")
    conversion.add_argument("kind", help="a kind of the project, for example Page")
    conversion.add_argument("--version", required=True, help="the other version, for example v1beta1")
    conversion.set_defaults(change=_with_conversion)
    for each in (kind, webhook, conversion):
        each.add_argument("--directory", type=Path, default=Path(), help="folder of the project (default: this one)")
        each.set_defaults(run=_add)


def _init(parsed: argparse.Namespace) -> None:
    check_name(parsed.name)
    project = Project(parsed.name).with_kind(parsed.kind, parsed.plural)
    folder = parsed.directory or Path(parsed.name)
    new_project(folder, project).write()
    _write_chart(folder, project)
    sys.stdout.write(NEXT_STEPS.format(name=parsed.name, folder=folder))


def _add(parsed: argparse.Namespace) -> None:
    before = read_project(parsed.directory)
    change: Callable[[Project, argparse.Namespace], Project] = parsed.change
    written = addition(parsed.directory, before, change(before, parsed)).write()
    if not written:
        sys.stdout.write("the project has it already: nothing was written\n")
        return
    sys.stdout.write("".join(f"wrote {path}\n" for path in written))
    sys.stdout.write("next: make generate\n")


def _with_kind(before: Project, parsed: argparse.Namespace) -> Project:
    return before.with_kind(parsed.kind, parsed.plural)


def _with_webhook(before: Project, parsed: argparse.Namespace) -> Project:
    return before.with_webhook(parsed.kind)


def _with_conversion(before: Project, parsed: argparse.Namespace) -> Project:
    return before.with_spoke(parsed.kind, parsed.version)


def _write_chart(folder: Path, project: Project) -> None:
    """Runs the project's program that writes the definitions, with this interpreter."""
    places = os.pathsep.join([str(folder.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": places}
    command = [sys.executable, "-m", f"{project.package}.chart"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if ran.returncode != 0:
        raise ProjectProblem(f"{' '.join(command)} in {folder} failed:\n{ran.stderr}")
