"""A Workspace with a model outside the catalog: nothing is claimed before its facts are known, and they are kept."""

import base64
import json
from typing import Any, Protocol

import pytest

from kaito.api import Workspace
from kaito.models.facts.derive import ModelFacts, Source, derive_facts
from kaito.models.facts.weight_files import select_weights
from kaito.runtime.kinds import ConfigMap, Secret, StatefulSet
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FactsRecord, facts_config_map
from kaito.workspace.main import workspace_manager
from kaito.workspace.settings import NodeApi, WorkspaceSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
NAME = "any"


def facts(**changes: Any) -> ModelFacts:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16",
    }
    weights = select_weights({"config.json": 1, "model.safetensors": 269_060_552})
    found = derive_facts(Source(model=MODEL, config=config, weights=weights, revision=COMMIT, license="apache-2.0"))
    return found.model_copy(update=changes)


class Reader:
    """Reads models in the place of a hub."""

    def __init__(self) -> None:
        self.results: list[ModelFacts | ModelUnavailable] = []
        self.queries: list[ModelQuery] = []

    async def __call__(self, query: ModelQuery) -> FactsRecord:
        self.queries.append(query)
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, ModelUnavailable):
            raise result
        source = str(query.artifact or "https://huggingface.co")
        return FactsRecord(reference=query.name, source=source, facts=result)


def workspace(name: str = MODEL, **options: Any) -> Workspace:
    return Workspace.model_validate(
        {
            "metadata": {"name": NAME, "namespace": "default"},
            "resource": {
                "instanceType": "Standard_NC24ads_A100_v4",
                "labelSelector": {"matchLabels": {"apps": "any"}},
            },
            "inference": {"preset": {"name": name, "presetOptions": options}},
        }
    )


class Cluster(Protocol):
    """The parts of the fixture `cluster` that are used here."""

    world: World

    def apply(self, workspace: Workspace) -> Workspace: ...
    def conditions(self, name: str = ...) -> dict[str, tuple[str, str, str]]: ...
    def claims(self) -> list[Any]: ...
    def join(self, claim: Any) -> Any: ...


@pytest.fixture
def node_api() -> NodeApi:
    return NodeApi.NODECLAIM


@pytest.fixture
def reader() -> Reader:
    return Reader()


def controller(cluster: Cluster, reader: Reader, **settings: Any) -> Manager:
    """Returns a controller process that reads models with `reader`."""
    runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False, log_level="warning")
    manager = workspace_manager(
        WorkspaceSettings(node_api=NodeApi.NODECLAIM, **settings),
        runtime,
        transport=cluster.world.transport(),
        clock=cluster.world.clock,
        read_model=reader,
    )
    cluster.world.track(manager)
    return manager


def container(cluster: Cluster) -> dict[str, Any]:
    """Returns the container that serves the model."""
    found: dict[str, Any] = cluster.world.get(StatefulSet, NAME).to_dict()["spec"]["template"]["spec"]["containers"][0]
    return found


def resolved(cluster: Cluster) -> tuple[str, str, str]:
    return cluster.conditions(NAME)["ModelResolved"]


def unreachable(**changes: Any) -> ModelUnavailable:
    return ModelUnavailable("HubUnreachable", "the hub does not answer", is_transient=True, **changes)


async def test_a_model_outside_the_catalog_is_read_pinned_and_served(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts()]
    async with controller(cluster, reader):
        cluster.apply(workspace())
        await cluster.world.settle()

        assert resolved(cluster)[:2] == ("True", "ModelResolved")
        assert "LlamaForCausalLM bfloat16, 0.13 billion parameters, 0.3 GiB, 8192 tokens" in resolved(cluster)[2]
        assert "at 0123456789ab, from https://huggingface.co" in resolved(cluster)[2]
        assert len(cluster.claims()) == 1
        kept = cluster.world.get(ConfigMap, f"{NAME}-model-facts")
        assert kept.metadata.owner_references[0].name == NAME
        assert COMMIT in kept.data["facts.json"]
        cluster.join(cluster.claims()[0])
        await cluster.world.settle()

        command = container(cluster)["command"]
        assert f"--model={MODEL}" in command
        assert f"--revision={COMMIT}" in command
        assert f"--code-revision={COMMIT}" in command
        assert "--served-model-name=smollm2-135m-instruct" in command
        assert not any(word.startswith("--trust-remote-code") for word in command)
    assert [str(query.reference) for query in reader.queries] == [MODEL]


async def test_a_restart_does_not_read_again(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts()]
    async with controller(cluster, reader):
        cluster.apply(workspace())
        await cluster.world.settle()
    later = Reader()
    later.results = [facts(revision="f" * 40)]
    async with controller(cluster, later):
        cluster.world.patch(Workspace, NAME, {"metadata": {"labels": {"touched": "yes"}}})
        await cluster.world.settle()

        assert resolved(cluster)[0] == "True"
    assert later.queries == []
    assert COMMIT in cluster.world.get(ConfigMap, f"{NAME}-model-facts").data["facts.json"]


@pytest.mark.parametrize("reason", ["HubUnreachable", "ModelNotFound", "ModelGated"])
async def test_nothing_is_bought_until_the_model_can_be_read(cluster: Cluster, reader: Reader, reason: str) -> None:
    reader.results = [ModelUnavailable(reason, "words for the user", is_transient=True)] * 3 + [facts()]
    async with controller(cluster, reader):
        cluster.apply(workspace())
        await cluster.world.settle()
        assert resolved(cluster) == ("Unknown", reason, "inference.preset.name: words for the user")
        assert cluster.claims() == []

        await cluster.world.advance(120)

        assert resolved(cluster)[0] == "True"
        assert len(cluster.claims()) == 1
    assert len(reader.queries) == 4


async def test_a_server_that_asks_to_wait_is_left_alone(cluster: Cluster, reader: Reader) -> None:
    reader.results = [unreachable(retry_after=500.0), facts()]
    async with controller(cluster, reader):
        cluster.apply(workspace())
        await cluster.world.advance(480)
        assert len(reader.queries) == 1

        await cluster.world.advance(60)

        assert len(reader.queries) == 2
        assert resolved(cluster)[0] == "True"


@pytest.mark.slow("test_nothing_is_bought_until_the_model_can_be_read")
async def test_failed_reads_are_repeated_with_growing_pauses(cluster: Cluster, reader: Reader) -> None:
    reader.results = [unreachable()]
    async with controller(cluster, reader):
        cluster.apply(workspace())
        await cluster.world.advance(3600)

    assert 8 <= len(reader.queries) <= 16
    assert cluster.claims() == []


@pytest.mark.parametrize("reason", ["UnsupportedArchitecture", "NoSafetensors", "RemoteCodeRequired", "ModelInvalid"])
async def test_a_model_that_cannot_be_served_is_false(cluster: Cluster, reader: Reader, reason: str) -> None:
    reader.results = [ModelUnavailable(reason, f"{MODEL} is wrong")]
    async with controller(cluster, reader):
        cluster.apply(workspace())
        await cluster.world.settle()

        assert resolved(cluster) == ("False", reason, f"inference.preset.name: {MODEL} is wrong")
        assert cluster.claims() == []


async def test_workspaces_with_the_same_model_read_it_once(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts()]
    async with controller(cluster, reader):
        for number in range(5):
            each = workspace()
            cluster.apply(each.evolve(metadata=each.metadata.evolve(name=f"any-{number}")))
        await cluster.world.settle()

        assert len(cluster.claims()) == 5
    assert len(reader.queries) == 1


async def test_the_token_of_the_workspace_is_used(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts(gated=True)]
    async with controller(cluster, reader):
        cluster.apply(workspace(modelAccessSecret="hf"))
        await cluster.world.settle()
        assert resolved(cluster)[1] == "SecretNotFound"
        assert reader.queries == []

        encoded = base64.b64encode(b"hf_abc").decode()
        cluster.world.put(Secret(metadata=ObjectMeta(name="hf", namespace="default"), data={"HF_TOKEN": encoded}))
        await cluster.world.advance(30)

        assert resolved(cluster)[0] == "True"
    assert [query.token for query in reader.queries] == ["hf_abc"]


async def test_the_artifact_of_the_model_registry_is_read_with_the_pull_secrets(
    cluster: Cluster, reader: Reader
) -> None:
    reader.results = [facts(revision="")]
    document = json.dumps({"auths": {"registry.example.com": {"auth": base64.b64encode(b"me:secret").decode()}}})
    encoded = base64.b64encode(document.encode()).decode()
    metadata = ObjectMeta(name="pull", namespace="default")
    cluster.world.put(Secret(metadata=metadata, data={".dockerconfigjson": encoded}))
    artifact = "registry.example.com/other/smollm2:1"
    async with controller(cluster, reader, model_registry="registry.example.com/models", hub_endpoint=""):
        cluster.apply(workspace(weights={"artifact": artifact}, imagePullSecrets=["pull"]))
        await cluster.world.settle()

        assert resolved(cluster)[0] == "True"
        assert f"from {artifact}" in resolved(cluster)[2]
    (query,) = reader.queries
    assert (str(query.artifact), query.docker_configs) == (artifact, (document,))
    assert "secret" not in repr(query)
    # Another artifact may contain another quantization of the model: its facts are read again.
    async with controller(cluster, reader, model_registry="registry.example.com/models", hub_endpoint=""):
        patch = {"inference": {"preset": {"presetOptions": {"weights": {"artifact": f"{artifact}-awq"}}}}}
        cluster.world.patch(Workspace, NAME, patch)
        await cluster.world.settle()
    assert [str(query.artifact) for query in reader.queries] == [artifact, f"{artifact}-awq"]


async def test_no_request_goes_to_a_registry_that_a_user_chooses(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts()]
    async with controller(cluster, reader, model_registry="registry.example.com/models"):
        cluster.apply(workspace(weights={"artifact": "169.254.169.254/m/smollm2:1"}))
        await cluster.world.settle()

        assert "from https://huggingface.co" in resolved(cluster)[2]
    assert [query.artifact for query in reader.queries] == [None]


async def test_facts_of_the_user_need_no_network(cluster: Cluster, reader: Reader) -> None:
    async with controller(cluster, reader, hub_endpoint=""):
        cluster.apply(workspace(modelFacts="given"))
        await cluster.world.settle()
        assert resolved(cluster)[1] == "ConfigNotFound"

        record = FactsRecord(facts=facts())
        given = facts_config_map(workspace(), record)
        metadata = ObjectMeta(name="given", namespace="default")
        cluster.world.put(ConfigMap(metadata=metadata, data={"facts.json": "{}"}))
        await cluster.world.settle()
        assert resolved(cluster)[1] == "ConfigInvalid"
        assert "ConfigMap 'given' has no valid facts.json: facts: Field required" in resolved(cluster)[2]
        cluster.world.put(ConfigMap(metadata=metadata, data=given.data))
        await cluster.world.settle()

        assert resolved(cluster)[0] == "True"
        assert "from ConfigMap given" in resolved(cluster)[2]
        assert len(cluster.claims()) == 1
    assert reader.queries == []
    assert [each.name for each in cluster.world.list(ConfigMap, namespace="default")] == ["given"]


async def test_facts_of_another_model_are_refused(cluster: Cluster, reader: Reader) -> None:
    given = facts_config_map(workspace(), FactsRecord(facts=facts(model="org/other")))
    cluster.world.put(ConfigMap(metadata=ObjectMeta(name="given", namespace="default"), data=given.data))
    async with controller(cluster, reader):
        cluster.apply(workspace(modelFacts="given"))
        await cluster.world.settle()

        assert resolved(cluster)[1:] == (
            "ConfigInvalid",
            (
                "inference.preset.presetOptions.modelFacts: ConfigMap 'given' has the facts of org/other, not of "
                f"{MODEL}"
            ),
        )


async def test_code_of_a_repository_needs_consent(cluster: Cluster, reader: Reader) -> None:
    given = facts_config_map(workspace(), FactsRecord(facts=facts(remote_code=True, in_transformers=False)))
    cluster.world.put(ConfigMap(metadata=ObjectMeta(name="given", namespace="default"), data=given.data))
    async with controller(cluster, reader):
        cluster.apply(workspace(modelFacts="given"))
        await cluster.world.settle()
        assert resolved(cluster)[:2] == ("False", "RemoteCodeRequired")
        assert cluster.claims() == []

        cluster.apply(workspace(modelFacts="given", trustRemoteCode=True))
        await cluster.world.settle()
        assert resolved(cluster)[0] == "True"
        cluster.join(cluster.claims()[0])
        await cluster.world.settle()

        command = container(cluster)["command"]
        assert "--trust-remote-code" in command


@pytest.mark.parametrize("options", [{"modelFacts": "given"}, {"trustRemoteCode": True}])
async def test_options_without_effect_are_refused(cluster: Cluster, reader: Reader, options: dict[str, Any]) -> None:
    async with controller(cluster, reader):
        cluster.apply(workspace("microsoft/phi-4", **options))
        await cluster.world.settle()

        status, reason, message = resolved(cluster)
        assert (status, reason) == ("False", "InvalidSpec")
        assert "has no effect, because microsoft/phi-4 is in the catalog: remove it" in message


async def test_another_revision_of_a_model_of_the_catalog_keeps_its_settings(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts(model="Qwen/Qwen3-8B-AWQ", architecture="Qwen3ForCausalLM", quantization="awq")]
    async with controller(cluster, reader):
        cluster.apply(workspace("Qwen/Qwen3-8B-AWQ@main"))
        await cluster.world.settle()
        cluster.join(cluster.claims()[0])
        await cluster.world.settle()

        command = container(cluster)["command"]
        assert f"--revision={COMMIT}" in command
        assert "--reasoning-parser=qwen3" in command
    assert reader.queries[0].reference.revision == "main"


async def test_a_mirror_is_named_in_the_pod(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts()]
    async with controller(cluster, reader, hub_endpoint="https://mirror.example/hf"):
        cluster.apply(workspace())
        await cluster.world.settle()
        cluster.join(cluster.claims()[0])
        await cluster.world.settle()

        env = container(cluster)["env"]
        assert {"name": "HF_ENDPOINT", "value": "https://mirror.example/hf"} in env


async def test_a_name_with_a_slash_that_is_no_id_is_refused(cluster: Cluster, reader: Reader) -> None:
    async with controller(cluster, reader):
        cluster.apply(workspace("org/model/part"))
        await cluster.world.settle()

        status, reason, message = resolved(cluster)
        assert (status, reason) == ("False", "UnknownPreset")
        assert "is not of the form organization/model or organization/model@revision" in message


async def test_a_config_map_of_another_owner_is_left_unchanged(cluster: Cluster, reader: Reader) -> None:
    reader.results = [facts()]
    cluster.world.put(ConfigMap(metadata=ObjectMeta(name=f"{NAME}-model-facts"), data={"theirs": "1"}))
    async with controller(cluster, reader):
        cluster.apply(workspace())
        await cluster.world.settle()
        assert cluster.claims() == []
        assert resolved(cluster)[:2] == ("Unknown", "NameConflict")
        theirs = cluster.world.get(ConfigMap, f"{NAME}-model-facts")
        assert (theirs.data, theirs.metadata.owner_references) == ({"theirs": "1"}, [])
