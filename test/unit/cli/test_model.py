"""`kaito model`: from a directory to a registry and back, the images of a preset, and wrong arguments."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from kaito.cli import model as command
from kaito.cli.main import main
from test.support.model_registry import LOADED, Content, model_directory, model_registry


@pytest.fixture
def registry() -> Iterator[Content]:
    with model_registry() as content:
        yield content


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exited:
        main(["model", *map(str, arguments)])
    return int(exited.value.code or 0)


def test_a_directory_is_packed_pushed_inspected_and_pulled(
    registry: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, store = model_directory(tmp_path / "tiny"), f"--store={tmp_path / 'store'}"
    name = f"{registry.address}/m/x:1"
    assert run("pack", source, name, store, "--annotation", "team=a=b", "--license=mit", "--revision=7") == 0
    assert f"packed {name}@sha256:" in capsys.readouterr().out
    assert registry.blobs == {}
    assert run("inspect", name, store, "--json") == 0
    stored = json.loads(capsys.readouterr().out)
    assert run("push", name, store) == 0
    assert f"pushed {name}@sha256:" in capsys.readouterr().out
    assert run("inspect", name, "--json") == 0
    pushed = json.loads(capsys.readouterr().out)
    assert (stored.pop("location"), pushed.pop("location")) == (str(tmp_path / "store"), registry.address)
    assert pushed == stored
    assert stored["annotations"]["team"] == "a=b"
    assert stored["annotations"]["org.opencontainers.image.licenses"] == "mit"
    assert stored["annotations"]["org.opencontainers.image.revision"] == "7"
    assert run("pull", name, tmp_path / "out") == 0
    assert capsys.readouterr().out.startswith(f"pulled {name} to {tmp_path / 'out'}: 5 files, sha256:")
    for file in LOADED:
        assert (tmp_path / "out" / file).read_bytes() == (source / file).read_bytes()
    assert run("pull", name, tmp_path / "linked", "--cache", tmp_path / "cache") == 0
    assert (tmp_path / "linked").is_symlink()


def test_a_directory_is_inspected_before_it_is_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", model_directory(tmp_path / "tiny")) == 0
    printed = capsys.readouterr().out
    assert "sh.kaito.model.dtype: bfloat16" in printed
    assert "tokenizer.json" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pack", "/absent", "r.io/x:1"), 2, "neither a directory nor a model id"),
        (("pack", "{model}", "r.io/x@sha256:" + "0" * 64), 2, "name a tag"),
        (("pack", "{model}", "NOT A REFERENCE"), 2, "is not an image reference"),
        (("pack", "{model}", "r.io/x:1", "--annotation", "a"), 2, "expected KEY=VALUE"),
        (("pack", "{model}/original", "r.io/x:1"), 3, "config.json is missing"),
        (("push", "r.io/x:1", "--store", "{model}/store"), 3, "run `kaito model pack` first"),
        (("inspect", "{registry}/m/x:1"), 5, "status 404"),
        (("pull", "{registry}/m/x:1", "{model}/out"), 5, "status 404"),
        (("image", "no-such-preset"), 1, "is not a preset"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    registry: Content,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    folder = model_directory(tmp_path / "tiny")
    assert run(*(each.format(model=folder, registry=registry.address) for each in arguments)) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("kaito: ")
    assert words in last


def test_images_of_a_preset() -> None:
    release = version("kaito")
    printed = command.images("phi-3-mini-4k-instruct", "registry.example.com/models")
    assert "artifact:      registry.example.com/models/phi-3-mini-4k-instruct:0.2.0" in printed
    assert f"kaito/kaito-vllm:{release}" in printed
    published = json.loads(command.images("phi-3-mini-4k-instruct", as_json=True))
    assert published["artifact"] == "mcr.microsoft.com/aks/kaito/kaito-phi-3-mini-4k-instruct:0.2.0"
    assert "none published" in command.images("llama-3.1-8b-instruct")
