"""References, credentials, layers (no registry needed)."""

import base64
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import IO

import pytest
from kaito_oci.adapter_image import pack, push_adapter
from kaito_oci.credentials import Credentials, find_credentials
from kaito_oci.layers import ImageTree, apply_layer
from kaito_oci.reference import parse_reference
from kaito_presets.errors import ConfigurationError, NotAnAdapter, RegistryError


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
def test_references_are_resolved_as_by_docker(text: str, host: str, path: str, version: str) -> None:
    reference = parse_reference(text)
    assert (reference.registry, reference.repository, reference.version) == (host, path, version)


@pytest.mark.parametrize(
    "text", ["", "r.io/UPPER/case", "a.io/x:bad tag", "a.io/x@sha256:short", "a.io/", "http://a.io/x"]
)
def test_malformed_reference_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not an image reference"):
        parse_reference(text)


def test_loopback_registries_are_recognized() -> None:
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


def test_packing_is_reproducible_and_contains_adapter_files_only(tmp_path: Path) -> None:
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


def layer(entries: dict[str, bytes | str | None]) -> io.BytesIO:
    """A layer of files (bytes), folders (None) and links (text; `hard:` before the target of a hard link)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(content, bytes):
                entry.size = len(content)
            elif content == "fifo":
                entry.type = tarfile.FIFOTYPE
            else:
                hard = content.startswith("hard:")
                entry.type, entry.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, content.removeprefix("hard:")
            archive.addfile(entry, io.BytesIO(content if isinstance(content, bytes) else b""))
    buffer.seek(0)
    return buffer


def test_layers_are_applied_in_order_with_whiteouts(tmp_path: Path) -> None:
    apply_layer(layer({"./data": None, "data/a": b"1", "data/d/x": b"1", "etc/passwd": b"no"}), tmp_path, "/data")
    apply_layer(layer({"/data/b": b"2", "data/.wh.a": b"", "database/c": b"no"}), tmp_path, "/data")
    apply_layer(layer({"data/d/.wh..wh..opq": b"", "data/d/y": b"3"}), tmp_path, "data/")
    files = {str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {"b": b"2", "d/y": b"3"}


def test_path_outside_the_image_is_rejected(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(RegistryError, match="is outside the image"):
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


def unpacked(tmp_path: Path, *layers: dict[str, bytes | str | None]) -> tuple[dict[str, bytes], list[str]]:
    """The files of an image's /data, and what could not be unpacked."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "keep").write_bytes(b"outside")
    content = ImageTree(tree, "/data")
    for entries in layers:
        content.apply(layer(entries))
    lost = content.resolve_links()
    assert (tmp_path / "keep").read_bytes() == b"outside"
    assert not any(path.is_symlink() for path in tree.rglob("*"))
    return {str(file.relative_to(tree)): file.read_bytes() for file in tree.rglob("*") if file.is_file()}, lost


@pytest.mark.parametrize("name", ["data/.wh...", "data/.wh..", "data/.wh.", ".wh...", "data/d/.wh..."])
def test_whiteout_outside_the_image_is_rejected(tmp_path: Path, name: str) -> None:
    """It removed the parent of the folder that was unpacked to."""
    with pytest.raises(RegistryError, match=r"whiteout .*is outside the image"):
        unpacked(tmp_path, {"data/x": b"1"}, {name: b""})
    assert (tmp_path / "keep").exists()
    assert (tmp_path / "tree" / "x").exists()


@pytest.mark.parametrize(
    ("layers", "files"),
    [
        ([{"data/a": b"1"}, {"data/a": None, "data/a/b": b"2"}], {"a/b": b"2"}),
        ([{"data/a": b"1"}, {"data/a/b": b"2"}], {"a/b": b"2"}),
        ([{"data/a/b": b"1"}, {"data/a": b"2"}], {"a": b"2"}),
        ([{"data/a": b"1", "data/b": b"1"}, {".wh.data": b""}], {}),
        ([{"data/a": b"1"}, {"data/b": b"2", ".wh..wh..opq": b""}], {"b": b"2"}),
        ([{"data/a": b"1"}, {"data/a": b"2", "data/.wh.a": b""}], {"a": b"2"}),
        ([{"data/d/a": b"1"}, {"data/d/b": b"2", "data/d/.wh..wh..opq": b""}], {"d/b": b"2"}),
        ([{"data/d/a": b"1"}, {"data/.wh.d": b""}], {}),
        ([{"data/a": "b", "data/b": b"1"}, {"data/.wh.a": b""}], {"b": b"1"}),
        ([{"data/a": "gone"}, {"data/a": b"1"}], {"a": b"1"}),
        ([{"data/p": "fifo"}, {"data/.wh.p": b"", "data/a": b"1"}], {"a": b"1"}),
    ],
)
def test_later_layers_replace_and_hide_earlier_ones(
    tmp_path: Path, layers: list[dict[str, bytes | str | None]], files: dict[str, bytes]
) -> None:
    """A file followed by a folder of its name ended as a traceback."""
    assert unpacked(tmp_path, *layers) == (files, [])


@pytest.mark.parametrize(
    "entries",
    [
        {"data/m": "blobs/1", "data/blobs/1": b"w"},
        {"data/m": "/data/blobs/1", "data/blobs/1": b"w"},
        {"data/blobs/1": b"w", "data/m": "hard:data/blobs/1"},
        {"data/s/m": "../blobs/1", "data/blobs/1": b"w", "data/m": "s/m"},
        {"data/blobs/1": b"w", "data/s": "blobs", "data/m": "s/1"},
        {"data/blobs/1": b"w", "data/l": "blobs/1", "data/m": "hard:data/l"},
    ],
)
def test_links_inside_the_directory_become_files(tmp_path: Path, entries: dict[str, bytes | str | None]) -> None:
    """The layout of a Hugging Face cache was pulled as an image without weights."""
    files, lost = unpacked(tmp_path, entries)
    assert lost == []
    assert files["m"] == b"w"


def test_linked_directory_is_copied_with_its_links(tmp_path: Path) -> None:
    entries: dict[str, bytes | str | None] = {
        "data/blobs/1": b"w", "data/snapshots/abc/model": "../../blobs/1", "data/main": "snapshots/abc",
    }  # fmt: skip
    files, lost = unpacked(tmp_path, entries)
    assert lost == []
    assert files == {"blobs/1": b"w", "snapshots/abc/model": b"w", "main/model": b"w"}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"data/m": "../blobs/1", "blobs/1": b"w"}, "m links to '../blobs/1', which is not in the directory"),
        ({"data/m": "/etc/passwd"}, "m links to '/etc/passwd', which is not in the directory"),
        ({"data/m": "absent"}, "m links to 'absent', which is not in the directory"),
        ({"data/m": "../../../../../../etc/passwd"}, "which is not in the directory"),
        ({"data/a": "b", "data/b": "a"}, "a links to 'b', which is not in the directory"),
        ({"data/d/x": b"1", "data/d/loop": "../d"}, "d/loop links to '../d', which contains the link"),
        ({"data/m": "hard:blobs/1"}, "m is a hard link to 'blobs/1', which is not in the directory"),
        ({"data/p": "fifo"}, "p is neither a file, a directory nor a link"),
        ({"data": "models", "models/m": b"1"}, "/data is a link to 'models'"),
    ],
)
def test_entry_that_cannot_be_written_is_reported(
    tmp_path: Path, entries: dict[str, bytes | str | None], words: str
) -> None:
    _, lost = unpacked(tmp_path, entries)
    assert any(words in text for text in lost), lost


def test_entry_below_a_link_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="below the link 'out'"):
        unpacked(tmp_path, {"data/out": "../..", "data/out/evil": b"x"})


@pytest.mark.parametrize(
    "stream",
    [
        gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"x" * 10000)[:30])),
        gzip.GzipFile(fileobj=io.BytesIO(b"\x1f\x8b")),
        io.BytesIO(b"x" * 600),
    ],
)
def test_broken_layer_is_a_registry_error(tmp_path: Path, stream: IO[bytes]) -> None:
    with pytest.raises(RegistryError, match=r"not a tar archive|cannot be unpacked"):
        apply_layer(stream, tmp_path, "/data")


def test_name_longer_than_the_file_system_allows_is_a_registry_error(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="cannot be unpacked at 'data/nnn"):
        unpacked(tmp_path, {"data/" + "n" * 300: b"1"})


@pytest.mark.parametrize("target", ["x" * 300, "x" * 3000, "y/" * 2000, "a\0b"])
def test_link_to_an_impossible_name_is_reported(tmp_path: Path, target: str) -> None:
    """A link's target longer than a file name ended as an OSError."""
    files, lost = unpacked(tmp_path, {"data/m": target, "data/x": b"1"})
    assert files == {"x": b"1"}
    assert len(lost) == 1
    assert lost[0].startswith("m links to ")


def test_path_with_too_many_parts_is_a_registry_error(tmp_path: Path) -> None:
    """A tree of 1500 folders could be written but not walked or removed (RecursionError)."""
    with pytest.raises(RegistryError, match="path with 1502 parts"):
        unpacked(tmp_path, {"data/" + "d/" * 1500 + "f": b"1"})


def test_chain_of_long_names_is_a_registry_error(tmp_path: Path) -> None:
    """Tarfile reads headers that follow each other by recursion."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 5
    block = header.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(tarfile.BLOCKSIZE, b"\0")
    with pytest.raises(RegistryError, match="not a tar archive"):
        apply_layer(io.BytesIO(block * 3000), tmp_path, "/data")


def test_links_that_expand_to_too_many_files_are_rejected(tmp_path: Path) -> None:
    """30 folders with two links each to the one before stand for a billion files."""
    entries: dict[str, bytes | str | None] = {"data/d0/f": b"1"}
    for number in range(1, 30):
        entries |= {f"data/d{number}/{name}": f"../d{number - 1}" for name in "ab"}
    with pytest.raises(RegistryError, match="more than 10000 files"):
        unpacked(tmp_path, entries)
