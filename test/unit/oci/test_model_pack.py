"""Packing a model: which files, which digests, which facts; the layout, the push, and damaged models."""

import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from kaito_oci import registry as client
from kaito_oci.errors import CredentialsRejected, InsufficientDisk, NotAModel, RegistryError
from kaito_oci.layout import stored_artifact, write_layout
from kaito_oci.model_artifact import Identity, archive_header, archive_size, pack_model
from kaito_oci.model_files import model_files, wanted_names
from kaito_oci.model_push import push_model
from kaito_oci.model_report import describe_manifest, inspect_directory, lines
from kaito_oci.progress import Progress
from kaito_oci.reference import parse_reference

from test.support.model_registry import LOADED, Content, digest_of, model_directory, model_registry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Content]:
    monkeypatch.setattr(client, "INITIAL_BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(client, "MAX_BACKOFF_SECONDS", 0.0)
    with model_registry() as content:
        yield content


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_directory(tmp_path / "tiny")


def ignore(_name: str, _done: int) -> None:
    pass


def test_the_same_files_have_the_same_digests(model: Path, tmp_path: Path) -> None:
    first = pack_model(model)
    (model / "config.json").touch()
    (model / "model.safetensors").chmod(0o600)
    again = pack_model(model)
    assert again.index.digest == first.index.digest
    assert [file.name for file in first.files] == LOADED


def test_a_layer_is_an_archive_with_one_file(model: Path) -> None:
    artifact = pack_model(model)
    for blob, file in zip(artifact.blobs, artifact.files, strict=False):
        content = blob.read()
        assert (digest_of(content), len(content)) == (blob.digest, blob.size)
        with tarfile.open(fileobj=BytesIO(content)) as archive:
            (entry,) = archive.getmembers()
            assert (entry.name, entry.mtime, entry.uid, entry.gid, entry.mode) == (file.name, 0, 0, 0, 0o644)
            opened = archive.extractfile(entry)
            assert opened is not None
            assert opened.read() == file.path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 2**33, 2**37])
def test_the_size_of_a_layer_is_known_without_reading_it(size: int) -> None:
    header = archive_header("model.safetensors", size)
    assert len(header) == 512
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size
    assert archive_size("model.safetensors", size) == 512 + -(-size // 512) * 512 + 1024


def test_the_manifests_are_those_of_an_ordinary_image(model: Path) -> None:
    artifact = pack_model(model, Identity(revision="abc", source="https://example.com/org/tiny"))
    index = json.loads(artifact.index.read())
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    assert [entry["digest"] for entry in index["manifests"]] == [each.digest for each in artifact.manifests]
    configs = {blob.digest: json.loads(blob.read()) for blob in artifact.blobs[-2:]}
    layers: list[Any] = []
    for manifest in artifact.manifests:
        document = json.loads(manifest.read())
        assert document["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
        config = configs[document["config"]["digest"]]
        assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"] for layer in document["layers"]]}
        assert {layer["mediaType"] for layer in document["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
        layers.append(document["layers"])
    assert layers[0] == layers[1]
    assert layers[0][1]["annotations"] == {
        "org.cncf.model.filepath": "config.json",
        "org.opencontainers.image.title": "config.json.tar",
        "sh.kaito.file.size-bytes": str((model / "config.json").stat().st_size),
    }
    assert index["annotations"] == {
        "org.opencontainers.image.licenses": "apache-2.0",
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.source": "https://example.com/org/tiny",
        "org.opencontainers.image.title": "org/tiny",
        "sh.kaito.model.architecture": "LlamaForCausalLM",
        "sh.kaito.model.context-tokens": "8192",
        "sh.kaito.model.dtype": "bfloat16",
        "sh.kaito.model.name": "org/tiny",
        "sh.kaito.model.parameters": "15000",
        "sh.kaito.model.size-bytes": str(artifact.facts.size),
        "sh.kaito.model.weights-bytes": str((model / "model.safetensors").stat().st_size),
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "model.safetensors", "model.bin", "x.gguf", "original/x.safetensors", "metal/m"], 2),
        (["config.json", "model-00001-of-00002.safetensors", "consolidated.safetensors", "tekken.json"], 3),
        (["config.json", "consolidated.safetensors", "params.json"], 2),
        (["config.json", "model.safetensors", "modeling_x.py", "LICENSE.txt", "README.md", ".gitattributes"], 4),
    ],
)
def test_files_that_no_engine_loads_are_left_out(names: list[str], expected: int) -> None:
    assert len(wanted_names(names)) == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.safetensors"], "config.json is missing"),
        (["config.json"], "no weights as safetensors$"),
        (["config.json", "pytorch_model.bin"], "convert pytorch_model.bin"),
    ],
)
def test_a_directory_without_a_model_is_refused(names: list[str], words: str) -> None:
    with pytest.raises(NotAModel, match=words):
        wanted_names(names)


def damage_size(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def damage_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json" + bytes(100))


def damage_length(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)


def damage_entry(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x07\0\0\0\0\0\0\0" + b'{"a":1}')


def damage_list(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0[]")


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def damage_shards(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00002-of-00002.safetensors"}}')


def damage_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_size, "its header describes"),
        (damage_header, "not a safetensors file"),
        (damage_length, "not a complete safetensors file"),
        (damage_entry, "not a safetensors file"),
        (damage_list, "not a safetensors file"),
        (damage_config, r"config\.json is not JSON"),
        (damage_shards, r"model-00002-of-00002\.safetensors missing"),
        (damage_index, "has no weight_map"),
    ],
)
def test_a_damaged_model_is_refused_with_the_file(model: Path, damage: Any, words: str) -> None:
    damage(model)
    with pytest.raises(NotAModel, match=words):
        pack_model(model)


def test_weights_that_the_index_does_not_name_are_left_out(model: Path) -> None:
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    (model / "extra.safetensors").write_bytes(b"another copy")
    names = [file.name for file in model_files(model)]
    assert "extra.safetensors" not in names
    assert "model.safetensors" in names


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="is not a directory"):
        model_files(tmp_path / "absent")


# The layout.


def test_a_stored_artifact_is_pushed_as_it_was_packed(registry: Content, model: Path, tmp_path: Path) -> None:
    name = f"{registry.address}/m/x:1"
    store = tmp_path / "store"
    artifact = pack_model(model)
    progress = Progress()
    assert write_layout(artifact, store, name, report=progress.update) == artifact.index.digest
    assert progress.done >= artifact.size
    digest = push_model(parse_reference(name), *stored_artifact(store, name))
    assert digest == artifact.index.digest
    media_type, document = registry.manifests["1"]
    assert (media_type, digest_of(document)) == ("application/vnd.oci.image.index.v1+json", digest)
    assert set(registry.blobs) == {blob.digest for blob in artifact.blobs}
    assert json.loads((store / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_a_replaced_artifact_leaves_no_blobs(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_layout(pack_model(model), store, "r.io/a:1", report=ignore)
    write_layout(pack_model(model), store, "r.io/b:1", report=ignore)
    (model / "tokenizer.json").write_text('{"new": 1}')
    (store / "blobs" / "sha256" / "left.partial").write_bytes(b"of a process that was killed")
    changed = pack_model(model)
    write_layout(changed, store, "r.io/a:1", report=ignore)
    stored_artifact(store, "r.io/b:1")
    write_layout(changed, store, "r.io/b:1", report=ignore)
    kept = {path.name for path in (store / "blobs" / "sha256").iterdir()}
    blobs = (*changed.blobs, *changed.manifests, changed.index)
    assert kept == {blob.digest.removeprefix("sha256:") for blob in blobs}


def test_a_missing_or_damaged_artifact_of_the_layout_is_reported(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(NotAModel, match="run `kaito model pack` first"):
        stored_artifact(store, "r.io/a:1")
    artifact = pack_model(model)
    write_layout(artifact, store, "r.io/a:1", report=ignore)
    (store / "blobs" / "sha256" / artifact.blobs[0].digest.removeprefix("sha256:")).write_bytes(b"")
    with pytest.raises(NotAModel, match="missing or incomplete; pack the model again"):
        stored_artifact(store, "r.io/a:1")


def test_a_file_that_changes_while_it_is_packed_is_reported(model: Path, tmp_path: Path) -> None:
    artifact = pack_model(model)
    damage_size(model)
    with pytest.raises(NotAModel, match="became shorter"):
        write_layout(artifact, tmp_path / "store", "r.io/a:1", report=ignore)


def test_a_full_disk_is_refused_before_writing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        f_bavail, f_frsize = 10, 1000

    def small(_: Path) -> type[Small]:
        return Small

    monkeypatch.setattr("os.statvfs", small)
    with pytest.raises(InsufficientDisk, match="of free disk space"):
        write_layout(pack_model(model), tmp_path / "store", "r.io/a:1", report=ignore)
    assert list((tmp_path / "store" / "blobs" / "sha256").iterdir()) == []


# The push.


def push(registry: Content, model: Path) -> str:
    artifact = pack_model(model)
    reference = parse_reference(f"{registry.address}/m/x:1")
    return push_model(reference, artifact.blobs, artifact.manifests, artifact.index)


def test_a_second_push_sends_no_blob(registry: Content, model: Path) -> None:
    push(registry, model)
    registry.requests.clear()
    push(registry, model)
    assert [path for method, path, _ in registry.requests if method == "PUT" and "/blobs/" in path] == []


def test_temporary_failures_of_a_push_are_retried(registry: Content, model: Path) -> None:
    registry.answers = [(503, {}), (429, {"Retry-After": "1"}), (500, {})]
    push(registry, model)
    assert "1" in registry.manifests


def test_a_rejected_push_writes_no_tag(registry: Content, model: Path) -> None:
    registry.answers = [(403, {})] * 50
    with pytest.raises(CredentialsRejected):
        push(registry, model)
    registry.answers = [(202, {"Location": "/v2/m/x/blobs/uploads/7"}), (204, {}), *[(507, {})] * 50]
    with pytest.raises(RegistryError, match="status 507"):
        push(registry, model)
    assert registry.manifests == {}


def test_a_report_lists_the_files(model: Path) -> None:
    found = lines(inspect_directory(model))
    assert any("tokenizer.json" in line for line in found)
    artifact = pack_model(model)
    document = json.loads(artifact.manifests[0].read())
    described = describe_manifest(document, "r.io/a:1", artifact.manifests[0].digest, location="r.io")
    assert [file["name"] for file in described["files"]] == LOADED
    assert described["size"] == artifact.facts.size
    assert lines(described)[-1] == f"size:        {artifact.facts.size} bytes in 5 files"
