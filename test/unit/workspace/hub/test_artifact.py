"""Facts of a model from its OCI artifact: what is read, what is not, and the message of each failure."""

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kaito_config.image_references import parse_image_reference
from kaito_oci import registry as registry_module
from kaito_oci.model_artifact import Identity, pack_model
from kaito_oci.model_push import push_model
from kaito_oci.reference import parse_reference

from kaito.models.facts.reference import ModelReference
from kaito.workspace.hub.artifact import read_artifact
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.reader import ModelReader
from test.support.hub_server import COMMIT, Repository, hub_server, safetensors
from test.support.model_registry import Content, archive, model_directory, model_registry

MODEL = "org/tiny"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "_name_or_path": MODEL,
}
RAW = "application/vnd.cncf.model.weight.config.v1.raw"
GZIP = "application/vnd.cncf.model.weight.config.v1.tar+gzip"
ZSTD = "application/vnd.cncf.model.weight.config.v1.tar+zstd"
WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "INITIAL_BACKOFF_SECONDS", 0.0)


@pytest.fixture
def registry() -> Iterator[Content]:
    with model_registry() as content:
        yield content


def query(content: Content, name: str = MODEL, **changes: Any) -> ModelQuery:
    artifact = parse_image_reference(f"{content.address}/m/tiny:1")
    return ModelQuery(ModelReference.parse(name), artifact=artifact, **changes)


async def failure(content: Content, **changes: Any) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as caught:
        await read_artifact(query(content, **changes))
    return caught.value


def pushed(content: Content, folder: Path, config: Mapping[str, Any] = CONFIG) -> Path:
    """Packs a model and pushes it, as `kaito model pack --push` does."""
    directory = model_directory(folder / "tiny")
    (directory / "config.json").write_text(json.dumps(config))
    artifact = pack_model(directory, Identity(name=MODEL, revision=COMMIT, license="mit"))
    reference = parse_reference(f"{content.address}/m/tiny:1")
    push_model(reference, artifact.blobs, artifact.manifests, artifact.index)
    content.requests.clear()
    return directory


async def test_a_packed_model_is_planned_from_its_artifact(registry: Content, tmp_path: Path) -> None:
    directory = pushed(registry, tmp_path)
    facts = await read_artifact(query(registry))

    assert (facts.model, facts.revision, facts.license) == (MODEL, COMMIT, "mit")
    assert (facts.architecture, facts.kv_bytes_per_token, facts.context) == ("LlamaForCausalLM", 23040, 8192)
    assert facts.weights_bytes == (directory / "model.safetensors").stat().st_size
    assert len(registry.downloads()) == 1, "only config.json is transferred"


async def test_a_branch_is_not_compared_with_the_commit(registry: Content, tmp_path: Path) -> None:
    """Also if its name is as long as a commit: the artifact contains no names of branches."""
    pushed(registry, tmp_path)
    branch = "release".ljust(40, "x")
    assert (await read_artifact(query(registry, name=f"{MODEL}@{branch}"))).revision == COMMIT


async def test_credentials_are_those_of_the_pull_secrets(registry: Content, tmp_path: Path) -> None:
    pushed(registry, tmp_path)
    registry.authorization = "Bearer none"
    auths = {registry.address: {"auth": base64.b64encode(b"me:secret").decode()}}
    await read_artifact(query(registry, docker_configs=("not JSON", "[]", json.dumps({"auths": auths}))))

    assert registry.tokens == 1


async def test_an_artifact_of_modelpack_is_read(registry: Content) -> None:
    config = json.dumps(CONFIG).encode()
    registry.add((RAW, config, "config.json"), (WEIGHTS, b"w" * 1000, "model.safetensors"))
    assert (await read_artifact(query(registry))).weights_bytes == 1000

    packed = gzip.compress(archive({"config.json": config}))
    registry.add((GZIP, packed, "config.json"), (WEIGHTS, b"w" * 1000, "model.safetensors"))
    assert (await read_artifact(query(registry))).layers == 30


async def test_the_files_of_the_index_are_counted(registry: Content) -> None:
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    registry.add(
        (RAW, json.dumps(CONFIG).encode(), "config.json"),
        (RAW, index, "model.safetensors.index.json"),
        (WEIGHTS, b"w" * 1000, "one.safetensors"),
        (WEIGHTS, b"x" * 500, "two.safetensors"),
        (WEIGHTS, b"y" * 9000, "other.safetensors"),
    )
    assert (await read_artifact(query(registry))).weights_bytes == 1500


async def test_each_failure_names_the_cause(registry: Content, tmp_path: Path) -> None:
    missing = await failure(registry)
    assert (missing.reason, missing.is_transient) == ("HubUnreachable", True)
    assert "status 404 (not known): check the artifact" in missing.message

    pushed(registry, tmp_path)
    other = await failure(registry, name="org/large")
    assert (other.reason, other.is_transient) == ("ModelInvalid", False)
    assert "contains org/tiny, not org/large" in other.message
    commit = await failure(registry, name=f"{MODEL}@{'f' * 40}")
    assert "pack that commit" in commit.message

    registry.authorization = "Bearer none"
    registry.answers = [(403, {})] * 4
    rejected = await failure(registry)
    assert (rejected.reason, rejected.is_transient) == ("ModelGated", True)
    assert "presetOptions.imagePullSecrets" in rejected.message


async def test_damaged_artifacts_are_refused(registry: Content) -> None:
    config = json.dumps(CONFIG).encode()
    weights = (WEIGHTS, b"w" * 1000, "model.safetensors")
    cases = {
        "is damaged": (GZIP, b"not gzip", "config.json"),
        "does not contain it": (GZIP, gzip.compress(archive({"other.json": config})), "config.json"),
        "is compressed with zstd": (ZSTD, b"x", "config.json"),
    }
    for cause, layer in cases.items():
        registry.add(layer, weights)
        assert cause in (await failure(registry)).message
    registry.add((WEIGHTS.replace("raw", "tar"), archive({"model.safetensors": b"w"}), ""))
    assert "does not name its files" in (await failure(registry)).message
    registry.add((RAW, b"{", "config.json"), weights)
    assert (await failure(registry)).reason == "ModelInvalid"


async def test_a_document_that_is_too_large_is_not_held(registry: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    from kaito_oci import model_documents

    monkeypatch.setattr(model_documents, "MAX_DOCUMENT_BYTES", 100)
    registry.add((RAW, json.dumps(CONFIG).encode(), "config.json"), (WEIGHTS, b"w", "model.safetensors"))
    assert "more than 100 bytes" in (await failure(registry)).message
    assert registry.downloads() == []


async def test_the_hub_is_read_if_the_registry_does_not_answer(registry: Content, tmp_path: Path) -> None:
    async with hub_server() as hub:
        hub.repositories[MODEL] = Repository(
            {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors({"a": ("BF16", [9, 9], 162)})}
        )
        hub.repositories[MODEL].sizes["model.safetensors"] = 269_060_552
        reader = ModelReader(hub.address)
        found = await reader.read(query(registry))
        assert (found.source, found.facts.revision) == (hub.address, COMMIT)
        assert found.reference == f"{MODEL} in {registry.address}/m/tiny:1"

        pushed(registry, tmp_path)
        assert (await reader.read(query(registry))).source == f"{registry.address}/m/tiny:1"
        hub.repositories.clear()
        registry.manifests.clear()
        with pytest.raises(ModelUnavailable, match=r"does not exist.*; .*status 404") as both:
            await reader.read(query(registry))
        assert both.value.is_transient
    with pytest.raises(ModelUnavailable, match="tiny:1: GET manifests/1: status 404"):
        await ModelReader("").read(query(registry))
