"""Reads the one Workspace of a manifest that a user wrote, and plans it."""

import asyncio
import io
from dataclasses import replace
from typing import Final, final

import yaml

from kaito.console.cluster.watch import ClusterWatch
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.views.json_values import Json
from kaito.console.views.plans import plan_json, refused
from kaito.planning.comparison import LiveComparison
from kaito.planning.documents import Documents, InputError, Source, read_documents
from kaito.planning.planner import plan_workspace
from kaito.planning.report import PriceQuestion
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
        documents = read_documents(["-"], io.StringIO(text))
    except yaml.YAMLError as error:
        problem: object = getattr(error, "problem", None) or "parse error"
        raise Refusal(400, f"the manifest is not YAML: {problem}", "yaml") from None
    except InputError as error:
        raise Refusal(400, str(error).replace(_INPUT, "the manifest"), "yaml") from error
    if len(documents.workspaces) != 1:
        count = len(documents.workspaces) or "no"
        raise Refusal(400, f"the manifest contains {count} Workspaces: write exactly one", "yaml")
    return Draft(documents, documents.workspaces[0])


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

    async def plan(self, text: str, user: User) -> Json:
        """Returns the plan of a draft.

        Raises:
            Refusal: the plan takes too long.
            KaitoRuntimeError: the cluster cannot be read.
        """
        try:
            draft = await read_draft(text)
        except Refusal as refusal:
            return refused([(refusal.field, str(refusal))])
        settings, notes = self._watch.controller_settings()
        live = LiveComparison(user.client, settings)
        live.notes.extend(notes)
        question = PriceQuestion(book=self._watch.prices.book, region=settings.region)
        try:
            async with self._limit, asyncio.timeout(PLAN_SECONDS):
                report = await plan_workspace(
                    draft.source,
                    draft.documents,
                    settings,
                    question,
                    live=live,
                    clock=self._watch.clock,
                    read_model=self._read_model,
                )
        except TimeoutError:
            raise Refusal(503, "the plan takes too long: the source of the model does not answer; try again") from None
        return plan_json(replace(report, origin=""))


async def no_network(query: ModelQuery) -> FactsRecord:
    """Reads nothing: in a cluster, a draft must not make the console send requests to addresses that it names.

    Raises:
        LookupUnavailable: always; the plan then lists what was not checked.
    """
    raise LookupUnavailable(str(query.reference))
