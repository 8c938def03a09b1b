"""Reads the one Workspace of a manifest that a user wrote, and plans it."""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, cast, final

import yaml

from kaito.api import Workspace
from kaito.api.json_values import json_object
from kaito.console.names import is_name
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.views.json_values import Json
from kaito.console.views.plans import plan_json, refused
from kaito.console.views.start_times import time_to_ready
from kaito.console.watch import ClusterWatch
from kaito.planning.comparison import LiveComparison
from kaito.planning.documents import Documents, InputError, Source, read_documents
from kaito.planning.planner import plan_workspace
from kaito.planning.report import PlanReport, PriceQuestion
from kaito.runtime.errors import BadRequest, Invalid, NotFound
from kaito.runtime.manifest_yaml import load_documents
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.reads import ReadModel
from kaito.workspace.hub.record import FactsRecord
from kaito.workspace.preflight.context import LookupUnavailable

MAX_CONCURRENT_PLANS: Final = 4

PLAN_SECONDS: Final = 60.0
"""Time limit of one plan, which may read facts of a model from the network."""

MAX_CHARACTERS: Final = 131_072
"""Longest manifest of a draft."""

MAX_DEPTH: Final = 100
"""Deepest nesting of a manifest."""

UNNAMED: Final = "unnamed"
"""Name with which a draft without one is planned."""

NAME_MISSING: Final[Mapping[str, str]] = {
    "field": "metadata.name",
    "message": "is missing: give the Workspace a name",
}

_INPUT: Final = "standard input"


@final
class Draft:
    """A manifest with one Workspace."""

    def __init__(self, documents: Documents, source: Source) -> None:
        self.documents = documents
        self.source = source


async def read_draft(text: str) -> Draft:
    """Reads a manifest, in a thread: the parser is slow.

    Raises:
        Refusal: it is too long, is not YAML, or does not contain exactly one Workspace.
    """
    if len(text) > MAX_CHARACTERS:
        raise Refusal(413, f"the manifest has more than {MAX_CHARACTERS} characters: shorten it", "yaml")
    return await asyncio.to_thread(_read, text)


def _read(text: str) -> Draft:
    try:
        _check_structure(text)
        documents = read_documents(["-"], io.StringIO(_with_generated_name(text)))
    except yaml.YAMLError as error:
        problem: object = getattr(error, "problem", None) or "parse error"
        raise Refusal(400, f"the manifest is not YAML: {problem}", "yaml") from None
    except InputError as error:
        raise Refusal(400, str(error).replace(_INPUT, "the manifest"), "yaml") from error
    if len(documents.workspaces) != 1:
        count = len(documents.workspaces) or "no"
        raise Refusal(400, f"the manifest contains {count} Workspaces: write exactly one", "yaml")
    if documents.workspaces[0].inference_set is not None:
        # Its first Workspace would be written instead of the set.
        raise Refusal(400, "the manifest contains an InferenceSet: write a Workspace, or use kubectl apply", "yaml")
    return Draft(documents, documents.workspaces[0])


def _with_generated_name(text: str) -> str:
    """Returns a manifest whose Workspace has no name with a generated one, so that the rest of it can be read.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    documents = [json_object(each) for each in load_documents(text)]
    unnamed = [each for each in documents if each.get("kind") == Workspace.kind and not _has_name(each)]
    for each in unnamed:
        each["metadata"] = {**json_object(each.get("metadata")), "generateName": UNNAMED}
    return yaml.safe_dump_all(documents, sort_keys=False) if unnamed else text


def _has_name(document: Mapping[str, object]) -> bool:
    metadata = json_object(document.get("metadata"))
    return bool(metadata.get("name") or metadata.get("generateName"))


def _check_structure(text: str) -> None:
    """Checks a text before it is loaded.

    A few aliases of aliases expand to a document that fills the memory. libyaml recurses for nested values, and ends
    the process when the stack is full.

    Raises:
        Refusal: it contains aliases, or is nested too deeply.
        yaml.YAMLError: it is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise Refusal(400, "the manifest contains an alias (*name): write the value instead", "yaml")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise Refusal(400, f"the manifest is nested more than {MAX_DEPTH} levels deep: correct it", "yaml")


@final
class Planner:
    """Plans drafts against the cluster, with the rights of the user.

    Args:
        watch: the cluster.
        read_model: reads facts of models outside the catalog; by default over the network.
    """

    def __init__(self, watch: ClusterWatch, read_model: ReadModel | None = None) -> None:
        self._watch = watch
        self._read_model = read_model
        self._limit = asyncio.Semaphore(MAX_CONCURRENT_PLANS)

    async def plan(self, text: str, user: User, *, update: bool = False) -> Json:
        """Returns the plan of a draft.

        Args:
            text: the manifest.
            user: the user.
            update: whether a Workspace that exists is changed.

        Raises:
            Refusal: the plan takes too long.
            KaitoRuntimeError: the cluster cannot be read.
        """
        try:
            draft = await read_draft(text)
        except Refusal as refusal:
            return refused([(refusal.field, str(refusal))])
        given = draft.source.workspace
        is_unnamed = not given.name
        if is_unnamed:  # forms fill in the name last; the rest is planned meanwhile
            given = given.with_metadata(name=UNNAMED)
        if wrong := wrong_names(given):
            return refused(wrong)
        try:
            if not update and not is_unnamed and (taken := await name_taken(given, user)):
                return refused([("metadata.name", taken)])
            report = await self._report(draft, replace(draft.source, workspace=given), user)
        except NotFound as error:
            return refused([("metadata.namespace", error.message)])
        except (BadRequest, Invalid) as error:
            return refused([(next((cause.get("field", "") for cause in error.causes), ""), error.message)])
        plan = plan_json(report, self._ready_after(report))
        if is_unnamed:
            plan |= {"ok": False, "refusals": [NAME_MISSING, *report_refusals(plan)]}
        return plan

    def _ready_after(self, report: PlanReport) -> Json | None:
        workspace, planned = report.preview.workspace, report.preview.plan
        if planned is None or workspace.inference is None or not workspace.preset_name:
            return None
        claims, pods = self._watch.situations.started(
            workspace.namespace, workspace.preset_name, planned.hardware.instance_type
        )
        return time_to_ready(claims, pods, buys_nodes=report.preview.wanted_claims > 0)

    async def _report(self, draft: Draft, source: Source, user: User) -> PlanReport:
        """Plans a Workspace.

        Raises:
            Refusal: the plan takes too long.
            ApiError: the cluster cannot be read, or rejects a dry run.
        """
        settings, notes = self._watch.controller_settings()
        live = LiveComparison(user.client, settings)
        live.notes.extend(notes)
        question = PriceQuestion(book=self._watch.prices.book, region=settings.region)
        try:
            async with self._limit, asyncio.timeout(PLAN_SECONDS):
                return await plan_workspace(
                    source,
                    draft.documents,
                    settings,
                    question,
                    live=live,
                    clock=self._watch.clock,
                    read_model=self._read_model,
                )
        except TimeoutError:
            raise Refusal(503, "the plan takes too long: the source of the model does not answer; try again") from None


def wrong_names(workspace: Workspace) -> list[tuple[str, str]]:
    """Returns field and message for a name and a namespace that cannot be used in a path of the API server."""
    names = (("metadata.name", workspace.name), ("metadata.namespace", workspace.namespace))
    message = "cannot be a name: use lower-case letters, digits and '-'"
    return [(field, f"{value!r} {message}") for field, value in names if not is_name(value)]


async def name_taken(workspace: Workspace, user: User) -> str:
    """Returns the refusal of a new Workspace whose name another one has; empty if none has it.

    Raises:
        ApiError: the Workspace cannot be read.
    """
    if await user.client.find(Workspace, workspace.name, workspace.namespace) is None:
        return ""
    return f"Workspace {workspace.key} exists: choose another name, or change it with kubectl apply"


def report_refusals(plan: Json) -> list[object]:
    """Returns the refusals of a plan."""
    return cast("list[object]", plan["refusals"])


async def no_network(query: ModelQuery) -> FactsRecord:
    """Reads nothing: in a cluster, a draft must not make the console send requests to addresses that it names.

    Raises:
        LookupUnavailable: always; the plan then lists what was not checked.
    """
    raise LookupUnavailable(str(query.reference))
