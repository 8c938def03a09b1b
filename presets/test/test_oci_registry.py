"""Pushing to and pulling from a real registry, with credentials, and from one that misbehaves."""

import base64
import json
import os
import socket
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kaito_oci.adapter_image import check_push, pull_image, push_adapter
from kaito_oci.reference import parse_reference
from kaito_oci.registry import MAX_ATTEMPTS, Registry
from kaito_presets.errors import CredentialsRejected, NotAnAdapter, RegistryError
from real_registry import registry_command, running as running_program
from scripted_registry import NO_HEADERS, Answer, Scripted, scripted_registry

# bcrypt of "secret"; the registry accepts nothing else.
HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@contextmanager
def running(folder: Path, *, secured: bool) -> Generator[str]:
    program = registry_command()
    if program is None:
        pytest.skip("no registry: neither docker-registry, KAITO_TEST_REGISTRY nor Go is on this machine")
    folder.mkdir()
    htpasswd = None
    if secured:
        htpasswd = folder / "htpasswd"
        htpasswd.write_text(HTPASSWD)
    with running_program(program, folder, htpasswd) as host:
        yield host


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("registries") / "open", secured=False) as host:
        yield host


@pytest.fixture(scope="module")
def secured_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("registries") / "secured", secured=True) as host:
        yield host


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "kaito_adapter.json").write_text("{}")
    return folder


def docker_config(folder: Path, host: str, password: str) -> Path:
    file = folder / f"{password}.json"
    auth = base64.b64encode(f"user:{password}".encode()).decode()
    file.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return file


@pytest.mark.registry
def test_pulled_adapter_equals_the_pushed_one(open_registry: str, adapter: Path, tmp_path: Path) -> None:
    reference = parse_reference(f"{open_registry}/team/adapter:0.0.1")
    digest = push_adapter(adapter, reference, annotations={"sh.kaito.model.name": "phi"})
    assert push_adapter(adapter, reference, annotations={"sh.kaito.model.name": "phi"}) == digest
    names = pull_image(reference, tmp_path / "pulled")
    assert names == ["adapter_config.json", "adapter_model.safetensors", "kaito_adapter.json"]
    assert all((tmp_path / "pulled" / name).read_bytes() == (adapter / name).read_bytes() for name in names)
    by_digest = parse_reference(f"{open_registry}/team/adapter@{digest}")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    assert pull_image(by_digest, mounted) == names
    request = urllib.request.Request(f"http://{open_registry}/v2/team/adapter/manifests/0.0.1")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    with urllib.request.urlopen(request) as response:
        manifest = json.load(response)
    assert manifest["annotations"] == {"sh.kaito.model.name": "phi"}
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.oci.image.layer.v1.tar+gzip"]


@pytest.mark.registry
def test_credentials_from_the_secret_are_used(secured_registry: str, adapter: Path, tmp_path: Path) -> None:
    reference = parse_reference(f"{secured_registry}/adapter:1")
    right = docker_config(tmp_path, secured_registry, "secret")
    wrong = docker_config(tmp_path, secured_registry, "guess")
    with pytest.raises(CredentialsRejected, match="credentials"):
        push_adapter(adapter, reference)
    with pytest.raises(CredentialsRejected, match="rejects user 'user'"):
        push_adapter(adapter, reference, docker_configs=[wrong])
    push_adapter(adapter, reference, docker_configs=[right])
    # For a pull each of several secrets is tried.
    assert pull_image(reference, tmp_path / "pulled", docker_configs=[wrong, right])
    with pytest.raises(CredentialsRejected):
        pull_image(reference, tmp_path / "not", docker_configs=[wrong])
    assert not (tmp_path / "not").exists()


@pytest.mark.registry
def test_missing_image_and_missing_path_are_reported(open_registry: str, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="404"):
        pull_image(parse_reference(f"{open_registry}/absent:1"), tmp_path / "x")
    reference = parse_reference(f"{open_registry}/adapter:2")
    push_adapter(adapter, reference)
    with pytest.raises(NotAnAdapter, match="contains no file below /models"):
        pull_image(reference, tmp_path / "x", path="/models")


# A registry that misbehaves.


@pytest.fixture
def scripted() -> Iterator[str]:
    with scripted_registry() as host:
        yield host


def client(host: str, sleep: Callable[[float], None]) -> Registry:
    return Registry(parse_reference(f"{host}/x:1"), None, sleep=sleep)


def test_temporary_failures_are_retried_with_backoff(scripted: str) -> None:
    pauses: list[float] = []
    Scripted.script = [(503, {}), (500, {}), (429, {"Retry-After": "7"}), (201, {})]
    client(scripted, pauses.append).push_manifest(b"{}", "x/y")
    assert pauses == [1.0, 2.0, 7.0]


def test_broken_upload_is_restarted(scripted: str) -> None:
    pauses: list[float] = []
    Scripted.script = [(404, {}), (202, {"Location": "/up/1"}), (502, {}), (202, {"Location": "/up/2"}), (201, {})]
    client(scripted, pauses.append).push_blob(b"abc", "sha256:" + "0" * 64, 3)
    puts = [path for method, path, _ in Scripted.seen if method == "PUT"]
    assert [path.partition("?")[0] for path in puts] == ["/up/1", "/up/2"]


def test_last_failure_is_reported_after_the_retries(scripted: str) -> None:
    pauses: list[float] = []
    Scripted.script = [(503, {})] * 50
    with pytest.raises(RegistryError, match=r"x:1: PUT manifests/1: status 503"):
        client(scripted, pauses.append).push_manifest(b"{}", "x/y")
    assert len(pauses) == MAX_ATTEMPTS - 1


def test_unreachable_registry_is_retried_then_reported() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    pauses: list[float] = []
    with pytest.raises(RegistryError, match=host):
        client(host, pauses.append).push_manifest(b"{}", "x/y")
    assert len(pauses) == MAX_ATTEMPTS - 1


def test_bearer_challenge_is_answered_with_a_token(scripted: str) -> None:
    challenge = f'Bearer realm="http://{scripted}/token",service="s",scope="repository:x:pull,push"'
    Scripted.script = [(401, {"WWW-Authenticate": challenge})]
    client(scripted, lambda _: None).push_manifest(b"{}", "x/y")
    assert [(method, auth) for method, _, auth in Scripted.seen] == [
        ("PUT", None),
        ("GET", None),
        ("PUT", "Bearer bearer-token"),
    ]
    assert "scope=repository%3Ax%3Apull%2Cpush" in Scripted.seen[1][1]


def test_check_of_a_push_starts_and_cancels_an_upload(scripted: str) -> None:
    """The registry was asked for the first time when training was over."""
    Scripted.script = [(202, {"Location": "/v2/x/blobs/uploads/1?state=s"}), (204, {})]
    client(scripted, lambda _: None).check_push()
    assert [(method, path) for method, path, _ in Scripted.seen] == [
        ("POST", "/v2/x/blobs/uploads/"),
        ("DELETE", "/v2/x/blobs/uploads/1?state=s"),
    ]


@pytest.mark.parametrize("status", [401, 404, 405, 500])
def test_check_of_a_push_ignores_a_failed_cancellation(scripted: str, status: int) -> None:
    Scripted.script = [(202, {"Location": "/up/1"}), (status, {}), (status, {})]
    client(scripted, lambda _: None).check_push()


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ([(401, {"WWW-Authenticate": 'Basic realm="r"'})], CredentialsRejected, "requires authentication"),
        ([(403, NO_HEADERS)], CredentialsRejected, "rejects anonymous access"),
        ([(404, NO_HEADERS)], RegistryError, "status 404"),
        ([(401, {"WWW-Authenticate": 'Bearer realm=""'})], CredentialsRejected, "has no URL of a token service"),
        ([(401, NO_HEADERS)], CredentialsRejected, "unknown authentication"),
        ([(503, NO_HEADERS)] * MAX_ATTEMPTS, RegistryError, "status 503"),
    ],
)
def test_check_of_a_push_reports_a_rejection(
    scripted: str, script: list[Answer], error: type[Exception], words: str
) -> None:
    Scripted.script = script
    with pytest.raises(error, match=f"x:1.*{words}"):
        client(scripted, lambda _: None).check_push()


@pytest.mark.registry
def test_check_of_a_push_stores_nothing(secured_registry: str, tmp_path: Path) -> None:
    reference = parse_reference(f"{secured_registry}/checked:1")
    check_push(reference, docker_configs=[docker_config(tmp_path, secured_registry, "secret")])
    with pytest.raises(CredentialsRejected):
        check_push(reference, docker_configs=[docker_config(tmp_path, secured_registry, "guess")])
    right = docker_config(tmp_path, secured_registry, "secret")
    with pytest.raises(RegistryError, match="404"):
        pull_image(reference, tmp_path / "x", docker_configs=[right])
