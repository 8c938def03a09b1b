"""The pages for users and operators: their manifests are admitted, and the commands, flags and paths in them exist."""

import argparse
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from kaito_config import INFERENCE_KEY, TRAINING_KEY, TrainingConfig, parse_inference, parse_training

from hack.images.command import parser as images_parser
from kaito.api.crds import manifests
from kaito.api.workspace import Workspace
from kaito.cli.main import parser as cli_parser
from kaito.provisioner.flags import parser as provisioner_parser
from kaito.runtime.testing import World
from kaito.workspace.activator.main import parser as activator_parser
from kaito.workspace.flags import parser as workspace_parser
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from test.support.codeblocks import CodeBlock, code_blocks

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for name in ("getting-started", "guides", "operations") for page in (DOCS / name).glob("*.md"))

OTHER_PROGRAMS = {
    "--attach-acr": "az",
    "--dry-run": "kubectl",
    "--debug": "helm",
    "--set": "helm",
    "--trust-remote-code": "vLLM",
    "--performance-mode": "vLLM",
    "--flag": "a placeholder",
    "--no-flag": "a placeholder",
    "--enable-oidc-issuer": "az",
    "--enable-workload-identity": "az",
    "--docker-config": "kaito-push-adapter",
    "--progress-file": "kaito-pull-model",
    "--progress-port": "kaito-pull-model",
    "--pool-name": "the endpoint picker",
    "--pool-namespace": "the endpoint picker",
    "--help": "every program",
    "--previous": "kubectl",
}
"""Flags in the text that are not flags of the controllers or of the command `kaito`."""


NOT_SERVED = frozenset({"HorizontalPodAutoscaler", "ScaledObject"})
"""Kinds that the in-memory API server does not have."""

NODE_API = {"getting-started/existing-nodes.md": NodeApi.BYO, "guides/karpenter.md": NodeApi.NODECLAIM}
"""Pages about an installation that does not create Machines."""


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


def documents(page: Path) -> list[dict[str, Any]]:
    blocks: list[CodeBlock] = [block for block in code_blocks(page) if block.language == "yaml"]
    found = [document for block in blocks for document in yaml.safe_load_all(block.code)]
    return [document for document in found if "kind" in document]


WITH_MANIFESTS = [page for page in PAGES if documents(page)]


@pytest.mark.parametrize("page", WITH_MANIFESTS, ids=name)
async def test_manifests_are_admitted(page: Path, apply: Callable[..., Awaitable[None]], world: World) -> None:
    found = [document for document in documents(page) if document["kind"] not in NOT_SERVED]
    await apply(world.transport(), [*manifests(), *found])
    node_api = NODE_API.get(name(page), NodeApi.MACHINE)
    settings = WorkspaceSettings(node_api=node_api)
    for document in found:
        if document["kind"] == "Workspace":
            stored = world.get(Workspace, document["metadata"]["name"])
            errors = [str(v) for v in validate_workspace(stored, None, settings) if v.severity == "error"]
            assert errors == [], f"{name(page)}: {stored.name}"


def test_configuration_files_in_manifests_are_valid() -> None:
    checked: list[str] = []
    for page in WITH_MANIFESTS:
        for document in documents(page):
            data: dict[str, str] = document.get("data", {}) if document["kind"] == "ConfigMap" else {}
            if INFERENCE_KEY in data:
                parse_inference(data[INFERENCE_KEY])
                checked.append(INFERENCE_KEY)
            if TRAINING_KEY in data:
                parse_training(data[TRAINING_KEY], TrainingConfig)
                checked.append(TRAINING_KEY)
    assert sorted(set(checked)) == [INFERENCE_KEY, TRAINING_KEY]


def subcommands(root: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in root._actions:  # argparse has no public list of actions
        choices: object = action.choices
        for command in cast("Mapping[str, object]", choices).values() if isinstance(choices, Mapping) else ():
            if isinstance(command, argparse.ArgumentParser):
                yield command
                yield from subcommands(command)


def parsers() -> Iterator[argparse.ArgumentParser]:
    yield workspace_parser()
    yield activator_parser()
    yield provisioner_parser({})
    yield from subcommands(images_parser())
    yield from subcommands(cli_parser())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_flags_in_the_text_exist(page: Path) -> None:
    known = {option for parser in parsers() for action in parser._actions for option in action.option_strings}
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    named = {flag for span in re.findall(r"`(--[^`]+)`", text) for flag in re.findall(r"--[a-z][\w-]*", span)}
    assert sorted(named - known - set(OTHER_PROGRAMS)) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_name_files_and_targets_that_exist(page: Path) -> None:
    lines = [line for block in code_blocks(page) if block.language == "sh" for line in block.code.splitlines()]
    text = "\n".join(lines)
    made = set(re.findall(r"cp -r \S+ (\S+)", (DOCS / "getting-started" / "install-aks.md").read_text()))
    paths = set(re.findall(r"\b(?:config|charts|presets/images|hack|test)/[\w./-]+", text))
    paths |= set(re.findall(r"-f (Dockerfile\.\w+)", text))
    missing = [path for path in sorted(paths) if path.removesuffix("/kustomization.yaml") not in made]
    assert [path for path in missing if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"^([a-z0-9-]+)(?: [a-z0-9-]+)*:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {word for line in lines if line.startswith("make ") for word in line.split()[1:2]}
    named |= set(re.findall(r"`make ([a-z-]+)`", page.read_text()))
    assert sorted(named - targets) == []


@pytest.mark.parametrize("page", sorted((DOCS / "internals").rglob("*.md")), ids=name)
def test_paths_in_the_internals_exist(page: Path) -> None:
    named = set(re.findall(r"`((?:kaito|presets|config|hack|test|docs)/[\w./-]*)`", page.read_text()))
    absent = {"kaito/__init__.py"}  # the record about distributions explains why
    assert [path for path in sorted(named - absent) if not (ROOT / path).exists()] == []
