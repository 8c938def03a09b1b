"""References, credentials, layers (no registry needed)."""

import base64
import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from kaito_presets.errors import ConfigurationError, NotAnAdapter, RegistryError
from kaito_presets.oci.adapter_image import apply_layer, pack, push_adapter
from kaito_presets.oci.credentials import Credentials, find_credentials
from kaito_presets.oci.reference import parse_reference


@pytest.mark.parametrize(
    ("text", "host", "path", "version"),
    [
        ("registry.example.com/a/b:1", "registry.example.com", "a/b", "1"),
        ("localhost:5000/x", "localhost:5000", "x", "latest"),
        ("ubuntu", "docker.io", "library/ubuntu", "latest"),
        ("me/thing:v1", "docker.io", "me/thing", "v1"),
        ("h.io/x@sha256:" + "a" * 64, "h.io", "x", "sha256:" + "a" * 64),
    ],
)
def test_references(text: str, host: str, path: str, version: str) -> None:
    reference = parse_reference(text)
    assert (reference.host, reference.path, reference.version) == (host, path, version)


@pytest.mark.parametrize("text", ["", "UPPER/case", "a.io/x:bad tag", "a.io/x@sha256:short", "a.io/", "http://a.io/x"])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not an image reference"):
        parse_reference(text)


def test_loopback_is_known() -> None:
    assert parse_reference("localhost:5000/x").is_loopback
    assert parse_reference("127.0.0.1:5000/x").is_loopback
    assert not parse_reference("registry.example.com:5000/x").is_loopback


def test_credentials_are_matched_by_host_and_longest_path(tmp_path: Path) -> None:
    def entry(user: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:p:w".encode()).decode()}

    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(
            {
                "auths": {
                    "https://r.io/v1/": entry("root"),
                    "r.io/team": entry("team"),
                    "r.io/teamwork": entry("other"),
                    "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
                    "t.io": {"identitytoken": "token"},
                    "broken.io": {"auth": "!!"},
                }
            }
        )
    )

    def user(reference: str) -> str | None:
        found = find_credentials(parse_reference(reference), [file])
        return found[0].user or found[0].identity_token if found else None

    assert user("r.io/x") == "root"
    assert user("r.io/team/x") == "team"
    assert user("me/x") == "hub"
    assert user("t.io/x") == "token"
    assert user("broken.io/x") is None
    assert user("else.io/x") is None
    assert find_credentials(parse_reference("r.io/x"), [tmp_path]) == [Credentials("root", "p:w")]
    assert "p:w" not in repr(Credentials("root", "p:w"))
    with pytest.raises(ConfigurationError, match="docker config"):
        find_credentials(parse_reference("r.io/x"), [tmp_path / "absent.json"])


def adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "optimizer.pt").write_bytes(b"not part of it")
    return folder


def test_packing_is_deterministic_and_holds_the_adapter_only(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "one")
    digests = pack(folder, tmp_path / "a.tgz")
    (folder / "adapter_config.json").touch()
    assert pack(folder, tmp_path / "b.tgz") == digests
    with tarfile.open(tmp_path / "a.tgz") as archive:
        assert archive.getnames() == ["data", "data/adapter_config.json", "data/adapter_model.safetensors"]
        assert {(entry.mtime, entry.uid) for entry in archive} == {(0, 0)}


def test_pushing_needs_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(NotAnAdapter, match=r"adapter_config\.json, adapter_model\.safetensors missing"):
        push_adapter(tmp_path, parse_reference("r.io/x"))


def layer(entries: dict[str, bytes | None]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content or b""))
    buffer.seek(0)
    return buffer


def test_layers_are_applied_in_order_with_whiteouts(tmp_path: Path) -> None:
    apply_layer(layer({"./data": None, "data/a": b"1", "data/d/x": b"1", "etc/passwd": b"no"}), tmp_path, "/data")
    apply_layer(layer({"/data/b": b"2", "data/.wh.a": b"", "database/c": b"no"}), tmp_path, "/data")
    apply_layer(layer({"data/d/.wh..wh..opq": b"", "data/d/y": b"3"}), tmp_path, "data/")
    files = {str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {"b": b"2", "d/y": b"3"}


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(RegistryError, match="leads outside"):
        apply_layer(layer({"data/../../evil": b"x"}), inside, "/data")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("data/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    buffer.seek(0)
    apply_layer(buffer, inside, "/data")
    assert list(inside.iterdir()) == []
    with pytest.raises(RegistryError, match="not a tar archive"):
        apply_layer(io.BytesIO(gzip.compress(b"nonsense" * 100)), inside, "/data")
