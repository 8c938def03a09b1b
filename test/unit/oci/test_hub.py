"""Downloading a model from a local server with the HTTP API of Hugging Face."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaito_oci.errors import ConfigurationError, CredentialsRejected, InsufficientDisk, NotAModel, RegistryError
from kaito_oci.hub import Hub, HubModel, download_model, find_model, is_model_id
from kaito_oci.model_commands import Access, PackOptions, inspect, pack

from test.support.model_hub import COMMIT, Repository, serving_hub
from test.support.model_registry import LOADED, model_directory, model_registry


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    found = Repository(model_directory(tmp_path / "hub", bytes_of_weights=100_000))
    with serving_hub(found):
        yield found


pauses: list[float] = []


def hub(repository: Repository, token: str = "") -> Hub:
    pauses.clear()
    return Hub(repository.address, token, pauses.append)


def ignore(_name: str, _done: int) -> None:
    pass


def found_model(repository: Repository) -> HubModel:
    return find_model(hub(repository), "org/tiny")


def test_only_the_files_that_an_engine_loads_are_downloaded(repository: Repository, tmp_path: Path) -> None:
    model = found_model(repository)
    assert (model.commit, model.license) == (COMMIT, "mit")
    assert [file.name for file in model.files] == LOADED
    download_model(hub(repository), model, tmp_path / "out", report=ignore)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == LOADED
    for name in LOADED:
        assert (tmp_path / "out" / name).read_bytes() == (repository.folder / name).read_bytes()
    repository.requests.clear()
    download_model(hub(repository), model, tmp_path / "out", report=ignore)
    assert repository.requests == []


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_continues(repository: Repository, tmp_path: Path, ranges: bool) -> None:
    model = found_model(repository)
    model = HubModel(model.name, model.commit, "", tuple(file for file in model.files if file.sha256))
    repository.cuts, repository.ranges = [30_000, 20_000], ranges
    repository.requests.clear()
    download_model(hub(repository), model, tmp_path / "out", report=ignore)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        repository.folder / "model.safetensors"
    ).read_bytes()
    assert [wanted for _, wanted, _ in repository.requests][:2] == ["", "bytes=30000-"]


def test_temporary_failures_are_retried_then_reported(repository: Repository) -> None:
    repository.answers = [429, 503]
    assert found_model(repository).commit == COMMIT
    assert pauses == [1.0, 2.0]
    repository.answers = [503] * 20
    with pytest.raises(RegistryError, match="status 503"):
        found_model(repository)


def test_a_wrong_digest_is_reported_and_the_file_removed(repository: Repository, tmp_path: Path) -> None:
    model = found_model(repository)
    weights = repository.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(RegistryError, match="differs from what the hub lists"):
        download_model(hub(repository), model, tmp_path / "out", report=ignore)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_gated_model_needs_a_token(repository: Repository, tmp_path: Path) -> None:
    repository.token = "hf_x"
    with pytest.raises(CredentialsRejected, match="requires authentication: set HF_TOKEN"):
        found_model(repository)
    with pytest.raises(CredentialsRejected, match="the token has no access"):
        find_model(hub(repository, "wrong"), "org/tiny")
    assert find_model(hub(repository, "hf_x"), "org/tiny").commit == COMMIT


@pytest.mark.parametrize(
    ("description", "error", "words"),
    [
        ({"sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}, NotAModel, "org/tiny: the model has no weights"),
        ({"sha": "../../x", "siblings": []}, RegistryError, "is not a commit"),
        ({"error": "x"}, RegistryError, "not the description of a model"),
        ({"sha": COMMIT, "siblings": 3}, RegistryError, "not the description of a model"),
    ],
)
def test_wrong_descriptions_are_reported(
    repository: Repository, description: dict[str, Any], error: type[Exception], words: str
) -> None:
    repository.description = description
    with pytest.raises(error, match=words):
        found_model(repository)


def test_unknown_models_and_endpoints_are_reported(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match="has no org/other"):
        find_model(hub(repository), "org/other")
    with pytest.raises(ConfigurationError, match="neither a directory nor a model id"):
        find_model(hub(repository), "a/b/c")
    with pytest.raises(ConfigurationError, match="is not an http or https address"):
        find_model(Hub("ftp://x", sleep=pauses.append), "org/tiny")
    with pytest.raises(RegistryError, match="127"):
        find_model(Hub("http://127.0.0.1:1", sleep=pauses.append), "org/tiny")
    assert not is_model_id("../x")
    assert not is_model_id("org/tiny/")


def test_a_full_disk_is_refused_before_the_download(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small:
        f_bavail, f_frsize = 10, 1000

    def small(_: Path) -> type[Small]:
        return Small

    model = found_model(repository)
    repository.requests.clear()
    monkeypatch.setattr("os.statvfs", small)
    with pytest.raises(InsufficientDisk):
        download_model(hub(repository), model, tmp_path / "out", report=ignore)
    assert repository.requests == []


def test_a_model_id_is_packed_with_its_commit_and_license(repository: Repository, tmp_path: Path) -> None:
    with model_registry() as registry:
        name = f"{registry.address}/m/x:1"
        options = PackOptions(push=True, hub=hub(repository), download_dir=tmp_path / "downloads")
        result = pack("org/tiny", name, options, Access())
        assert result.startswith(f"pushed {name}@sha256:")
        described = json.loads(inspect(name, Access(), store=tmp_path / "store", as_json=True))
    assert described["annotations"]["org.opencontainers.image.revision"] == COMMIT
    assert described["annotations"]["org.opencontainers.image.licenses"] == "mit"
    assert described["annotations"]["org.opencontainers.image.source"] == f"{repository.address}/org/tiny"
    assert described["annotations"]["sh.kaito.model.name"] == "org/tiny"
    assert [file["name"] for file in described["files"]] == LOADED
