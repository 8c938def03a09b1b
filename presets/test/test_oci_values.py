"""Single values, boundaries and rejections of pushing and pulling adapter images, on a registry in memory."""

import base64
import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaito_oci import layers, main as commands
from kaito_oci.adapter_image import pull_image, push_adapter
from kaito_oci.credentials import Credentials, default_files, find_credentials
from kaito_oci.reference import parse_reference
from kaito_oci.registry import DOCKER_LIST, INDEX, MANIFEST, Registry
from kaito_presets.errors import CredentialsRejected, NotAnAdapter, RegistryError
from memory_registry import Content, memory_registry

Served = tuple[str, Content]


@pytest.fixture
def served() -> Iterator[Served]:
    with memory_registry() as found:
        yield found


def _do_not_sleep(_: float) -> None:
    pass


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    # The default of the parameter: patching time.sleep has no effect on it.
    defaults: dict[str, Any] = Registry.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "sleep", _do_not_sleep)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"r": 8}')
    (directory / "adapter_model.safetensors").write_bytes(b"weights")
    (directory / "notes.txt").write_text("not part of the image")
    return directory


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def archive(files: dict[str, bytes], *, packed: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()


def store(content: Content, tag: str, document: dict[str, Any], media_type: str = MANIFEST) -> str:
    raw = json.dumps(document).encode()
    content.manifests[tag] = content.manifests[digest_of(raw)] = (media_type, raw)
    return digest_of(raw)


def store_image(content: Content, tag: str, *blobs: bytes, layer_type: str = "x.tar+gzip") -> str:
    for blob in blobs:
        content.blobs[digest_of(blob)] = blob
    return store(content, tag, {"layers": [{"digest": digest_of(blob), "mediaType": layer_type} for blob in blobs]})


def image(served: Served, version: str = ":1") -> Any:
    return parse_reference(f"{served[0]}/team/x{version}")


# Push.


def test_pushed_image_has_the_documents_of_the_oci_specification(served: Served, adapter: Path) -> None:
    digest = push_adapter(adapter, image(served), annotations={"b": "2", "a": "1"})
    media_type, raw = served[1].manifests["1"]
    assert (digest, media_type) == (digest_of(raw), "application/vnd.oci.image.manifest.v1+json")
    manifest = json.loads(raw)
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == media_type
    assert list(manifest["annotations"].items()) == [("a", "1"), ("b", "2")]
    (layer,) = manifest["layers"]
    packed = served[1].blobs[layer["digest"]]
    assert (layer["mediaType"], layer["size"]) == ("application/vnd.oci.image.layer.v1.tar+gzip", len(packed))
    config = served[1].blobs[manifest["config"]["digest"]]
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert manifest["config"]["size"] == len(config)
    assert json.loads(config) == {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(packed))]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "kaito-push-adapter"}],
    }  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as tar:
        entries = [(entry.name, oct(entry.mode), entry.isdir(), entry.uid, entry.mtime) for entry in tar]
    assert entries == [
        ("data", "0o755", True, 0, 0),
        ("data/adapter_config.json", "0o644", False, 0, 0),
        ("data/adapter_model.safetensors", "0o644", False, 0, 0),
    ]


def test_blobs_that_the_registry_has_are_not_uploaded_again(served: Served, adapter: Path) -> None:
    push_adapter(adapter, image(served))
    served[1].requests.clear()
    push_adapter(adapter, image(served))
    assert [method for method, _, _ in served[1].requests] == ["HEAD", "HEAD", "PUT"]


def test_missing_files_of_an_adapter_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotAnAdapter) as raised:
        push_adapter(tmp_path, parse_reference("r.io/x"))
    assert str(raised.value) == (
        f"{tmp_path} is not an adapter directory: adapter_config.json, adapter_model.safetensors missing"
    )


# Pull.


def test_pulled_files_are_those_of_the_image(served: Served, adapter: Path, tmp_path: Path) -> None:
    push_adapter(adapter, image(served))
    names = pull_image(image(served), tmp_path / "a" / "b")
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    assert (tmp_path / "a" / "b" / "adapter_model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"], "scratch files are left"


def test_existing_directory_keeps_its_other_files(served: Served, tmp_path: Path) -> None:
    store_image(served[1], "1", archive({"data/d/x": b"1", "data/y": b"2"}))
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    (target / "other").write_text("o")
    assert pull_image(image(served), target) == ["d/x", "y"]
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["d", "d/x", "other", "y"]


@pytest.mark.parametrize("packed", [True, False])
def test_layers_are_decompressed_by_their_content(served: Served, tmp_path: Path, packed: bool) -> None:
    store_image(served[1], "1", archive({"data/x": b"1"}, packed=packed))
    assert pull_image(image(served), tmp_path / "t") == ["x"]


def test_zstd_layers_are_rejected(served: Served, tmp_path: Path) -> None:
    store_image(served[1], "1", archive({"data/x": b"1"}), layer_type="layer.tar+zstd")
    with pytest.raises(RegistryError) as raised:
        pull_image(image(served), tmp_path / "t")
    assert str(raised.value) == "layers of type layer.tar+zstd are not supported; build the image with gzip layers"


def test_image_without_files_below_the_path_is_no_adapter(served: Served, tmp_path: Path) -> None:
    store_image(served[1], "1", archive({"data/x": b"1"}))
    with pytest.raises(NotAnAdapter) as raised:
        pull_image(image(served), tmp_path / "t", path="/models")
    assert str(raised.value) == f"{image(served)} contains no file below /models"


def test_entries_that_cannot_be_written_fail_the_pull(served: Served, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        device = tarfile.TarInfo("data/null")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    store_image(served[1], "1", buffer.getvalue())
    with pytest.raises(RegistryError) as raised:
        pull_image(image(served), tmp_path / "t")
    assert str(raised.value) == (
        f"{image(served)}: cannot write /data: null is neither a file, a directory nor a link; use regular files in "
        "the image"
    )


@pytest.mark.parametrize("media_type", [INDEX, DOCKER_LIST, "unknown"])
def test_image_of_this_platform_is_selected_from_an_index(served: Served, tmp_path: Path, media_type: str) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    content = served[1]
    ours, other = (store_image(content, tag, archive({f"data/{tag}": b"1"})) for tag in ("ours", "other"))
    store(content, "1", {"manifests": [
        {"digest": "sha256:0", "platform": {"os": "unknown", "architecture": machine}},
        {"digest": other, "platform": {"os": "linux", "architecture": "sparc"}},
        {"digest": ours, "platform": {"os": "linux", "architecture": machine}},
    ]}, media_type)  # fmt: skip
    assert pull_image(image(served), tmp_path / "t") == ["ours"]
    store(content, "2", {"manifests": [{"digest": other, "platform": {"architecture": "sparc"}}]}, media_type)
    assert pull_image(image(served, ":2"), tmp_path / "u") == ["other"]
    store(content, "3", {"manifests": [{"digest": other, "platform": {"architecture": "sparc"}}, {"digest": ours}]})
    assert pull_image(image(served, ":3"), tmp_path / "v") == ["ours"]
    store(content, "4", {"manifests": []}, media_type)
    with pytest.raises(RegistryError, match=r":4 is an index without images$"):
        pull_image(image(served, ":4"), tmp_path / "w")


def test_manifest_without_layers_is_rejected(served: Served, tmp_path: Path) -> None:
    store(served[1], "1", {}, "a/b")
    with pytest.raises(RegistryError, match=r":1 has a manifest without layers \(a/b\)$"):
        pull_image(image(served), tmp_path / "t")
    served[1].manifests["2"] = ("", b"{}")
    with pytest.raises(RegistryError, match=r":2 has a manifest without layers \(unknown type\)$"):
        pull_image(image(served, ":2"), tmp_path / "t")
    served[1].manifests["3"] = ("", b"{")
    with pytest.raises(RegistryError, match=r":3: the manifest is not JSON$"):
        pull_image(image(served, ":3"), tmp_path / "t")


def test_manifest_is_verified_by_its_digest(served: Served, tmp_path: Path) -> None:
    digest = store_image(served[1], "1", archive({"data/x": b"1"}))
    assert pull_image(image(served, f"@{digest}"), tmp_path / "t") == ["x"]
    served[1].manifests[digest] = (MANIFEST, b"{}")
    with pytest.raises(RegistryError, match=rf": manifest {digest} does not match its digest$"):
        pull_image(image(served, f"@{digest}"), tmp_path / "u")


def test_blob_with_a_wrong_digest_is_downloaded_again(served: Served, tmp_path: Path) -> None:
    store_image(served[1], "1", archive({"data/x": b"1"}))
    served[1].truncated = 5
    assert pull_image(image(served), tmp_path / "t") == ["x"]
    served[1].truncated = 6
    with pytest.raises(RegistryError, match=r"download of sha256:[0-9a-f]{12}: the content does not match the digest$"):
        pull_image(image(served), tmp_path / "u")
    assert served[1].truncated == 0


def test_message_of_the_registry_is_part_of_the_error(served: Served, tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as raised:
        pull_image(image(served), tmp_path / "t")
    assert str(raised.value) == f"{image(served)}: GET manifests/1: status 404 (not known; SECOND)"


def test_all_manifest_types_are_accepted(served: Served, tmp_path: Path) -> None:
    store_image(served[1], "1", archive({"data/x": b"1"}))
    pull_image(image(served), tmp_path / "t")
    _, _, headers = served[1].requests[0]
    assert headers["Accept"] == (
        "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
        "application/vnd.docker.distribution.manifest.v2+json, "
        "application/vnd.docker.distribution.manifest.list.v2+json"
    )


# Authentication.


def registry(served: Served, credentials: Credentials | None) -> Registry:
    return Registry(image(served), credentials)


def test_basic_challenge_is_answered_with_user_and_password(served: Served) -> None:
    served[1].challenge, served[1].authorization = 'Basic realm="r"', "Basic dTpw"
    registry(served, Credentials("u", "p")).push_manifest(b"{}", "x/y")
    with pytest.raises(CredentialsRejected) as raised:
        registry(served, None).push_manifest(b"{}", "x/y")
    assert str(raised.value) == f"{image(served)}: the registry requires authentication; no credentials are configured"
    with pytest.raises(CredentialsRejected) as raised:
        registry(served, Credentials("u", "wrong")).push_manifest(b"{}", "x/y")
    assert str(raised.value) == f"{image(served)}: the registry rejects user 'u' (status 401)"


def test_token_is_requested_for_push_and_pull(served: Served) -> None:
    served[1].challenge = f'Bearer realm="http://{served[0]}/token",service="s"'
    served[1].authorization = "Bearer t"
    registry(served, Credentials("u", "p")).push_manifest(b"{}", "x/y")
    method, path, headers = next(request for request in served[1].requests if "token" in request[1])
    assert (method, path) == ("GET", "/token?service=s&scope=repository%3Ateam%2Fx%3Apull%2Cpush")
    assert headers["Authorization"] == "Basic dTpw"


def test_identity_token_is_exchanged(served: Served) -> None:
    served[1].challenge = f'Bearer realm="http://{served[0]}/token",service="s",scope="a"'
    served[1].authorization = "Bearer t"
    served[1].token = b'{"access_token": "t"}'
    registry(served, Credentials(identity_token="i")).push_manifest(b"{}", "x/y")
    assert served[1].forms == [b"service=s&scope=a&grant_type=refresh_token&refresh_token=i&client_id=kaito"]
    _, _, headers = next(request for request in served[1].requests if "token" in request[1])
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("status", "token", "error", "message"),
    [
        (400, b"{}", CredentialsRejected, "the token service rejects the credentials (status 400)"),
        (401, b"{}", CredentialsRejected, "the token service rejects the credentials (status 401)"),
        (403, b'{"errors": [{"code": "c"}]}', CredentialsRejected, "the token service rejects the credentials (c)"),
        (404, b"{}", RegistryError, "status 404 (status 404)"),
        (200, b"{}", CredentialsRejected, "/token: the response of the token service contains no token"),
        (200, b'{"token": 1}', CredentialsRejected, "/token: the response of the token service contains no token"),
        (200, b"[]", CredentialsRejected, "/token: the response of the token service contains no token"),
        (200, b"x", CredentialsRejected, "/token: the response of the token service is not JSON"),
    ],
)
def test_failures_of_the_token_service_are_reported(
    served: Served, status: int, token: bytes, error: type[Exception], message: str
) -> None:
    served[1].challenge = f'Bearer realm="http://{served[0]}/token"'
    served[1].token_status, served[1].token = status, token
    with pytest.raises(error) as raised:
        registry(served, None).push_manifest(b"{}", "x/y")
    assert str(raised.value).endswith(message)


def test_credentials_are_tried_in_order_then_anonymous_access(served: Served, tmp_path: Path) -> None:
    store_image(served[1], "1", archive({"data/x": b"1"}))
    files = [tmp_path / "wrong.json", tmp_path / "right.json"]
    for file, user in zip(files, ("no", "u"), strict=True):
        file.write_text(json.dumps({"auths": {served[0]: {"username": user, "password": "p"}}}))
    served[1].challenge, served[1].authorization = "Basic", "Basic dTpw"
    assert pull_image(image(served), tmp_path / "t", docker_configs=files) == ["x"]
    served[1].challenge = ""
    assert pull_image(image(served), tmp_path / "u", docker_configs=files) == ["x"]
    served[1].challenge, served[1].authorization = "Basic", "other"
    with pytest.raises(CredentialsRejected, match="no credentials are configured"):
        pull_image(image(served), tmp_path / "v", docker_configs=files)


def test_default_file_is_that_of_docker(tmp_path: Path) -> None:
    assert default_files({}) == [tmp_path / "home" / ".docker" / "config.json"]
    assert default_files({"DOCKER_CONFIG": "/d"}) == [Path("/d/config.json")]


@pytest.mark.parametrize(
    ("entry", "credentials"),
    [
        ({"username": "u", "password": "p"}, Credentials("u", "p")),
        ({"username": "u"}, Credentials("u", "")),
        ({"auth": base64.b64encode(b"u:p:q").decode()}, Credentials("u", "p:q")),
        ({"identitytoken": "i", "username": "u"}, Credentials(identity_token="i")),
        ({"auth": base64.b64encode(b"u").decode()}, None),
        ({"auth": "!"}, None),
        ({"auth": "/w=="}, None),
        ({}, None),
        ("x", None),
    ],
)
def test_entry_of_a_docker_configuration_is_read(
    tmp_path: Path, entry: object, credentials: Credentials | None
) -> None:
    for name, document in (("config.json", {"auths": {"r.io": entry}}), (".dockerconfigjson", {"r.io": entry})):
        directory = tmp_path / name.strip(".")
        directory.mkdir()
        (directory / name).write_text(json.dumps(document))
        assert find_credentials(parse_reference("r.io/x"), [directory]) == ([credentials] if credentials else [])


def test_credentials_do_not_show_their_secret() -> None:
    assert repr(Credentials("u", "secret", "token")) == "Credentials(user='u')"


# Layers.


def test_hard_links_are_copied_where_the_file_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no links")

    monkeypatch.setattr(os, "link", no_links)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("data/a")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"1"))
        link = tarfile.TarInfo("data/b")
        link.type, link.linkname = tarfile.LNKTYPE, "data/a"
        tar.addfile(link)
    buffer.seek(0)
    assert layers.apply_layer(buffer, tmp_path, "/data") == []
    assert (tmp_path / "b").read_bytes() == b"1"


def test_path_may_have_100_parts(tmp_path: Path) -> None:
    good = io.BytesIO(archive({"data/" + "d/" * 98 + "f": b"1"}))
    assert layers.apply_layer(good, tmp_path, "/data") == []
    bad = io.BytesIO(archive({"data/" + "d/" * 99 + "f": b"1"}))
    with pytest.raises(RegistryError) as raised:
        layers.apply_layer(bad, tmp_path, "/data")
    shown = ("data/" + "d/" * 99)[:80]
    assert str(raised.value) == f"a layer contains a path with 101 parts, more than 100: {shown!r}"


def test_whiteout_removes_lower_entries_only(tmp_path: Path) -> None:
    tree = layers.ImageTree(tmp_path, "/data")
    tree.apply(io.BytesIO(archive({"data/d/a": b"1", "data/d/b": b"1", "data/e": b"1", "data/keep": b"1"})))
    tree.apply(
        io.BytesIO(archive({"data/d/.wh..wh..opq": b"", "data/d/c": b"2", "data/.wh.e": b"", "data/.wh.none": b""}))
    )
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["d", "d/c", "keep"]
    tree.apply(io.BytesIO(archive({"data/d/new": b"3", "data/.wh.d": b""})))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["d", "d/new", "keep"]
    tree.apply(io.BytesIO(archive({".wh.data": b""})))
    assert not any(tmp_path.iterdir())


# Commands.


def test_commands_push_and_pull(
    served: Served, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"auths": {served[0]: {"username": "u", "password": "p"}}}))
    served[1].challenge, served[1].authorization = "Basic", "Basic dTpw"
    name = f"{served[0]}/team/x:1"
    monkeypatch.setattr(
        sys, "argv", ["push", str(adapter), name, f"--docker-config={config}", "--annotation", "a=b=c", "d="]
    )
    assert commands.push() == 0
    _, raw = served[1].manifests["1"]
    assert capsys.readouterr().out == f"{name}@{digest_of(raw)}\n"
    assert json.loads(raw)["annotations"] == {"a": "b=c", "d": ""}
    target = tmp_path / "pulled"
    monkeypatch.setattr(sys, "argv", ["pull", name, str(target), "--docker-config", str(config)])
    assert commands.pull() == 0
    assert capsys.readouterr().out == f"{target}: adapter_config.json, adapter_model.safetensors\n"
    monkeypatch.setattr(sys, "argv", ["pull", name, str(tmp_path / "n"), f"--docker-config={config}", "--path=/models"])
    assert commands.pull() == 3
    assert capsys.readouterr().err.splitlines()[-1] == f"kaito-pull-adapter: {name} contains no file below /models"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/absent", "NOT A REFERENCE"], 2, "kaito-push-adapter: 'NOT A REFERENCE' is not an image reference"),
        (["/absent", "r.io/x", "--annotation=x"], 2, "kaito-push-adapter: --annotation 'x': expected KEY=VALUE"),
        (["/absent", "r.io/x"], 3, "kaito-push-adapter: /absent is not an adapter directory"),
    ],
)
def test_wrong_arguments_of_a_push_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["push", *arguments])
    assert commands.push() == code
    assert capsys.readouterr().err.startswith(message)
