"""`kaito model inspect` of a model id or a directory, and `kaito model catalog --check`."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from kaito.cli import model, model_facts
from kaito.cli.main import parser
from kaito.models import catalog
from kaito.runtime.kinds import ConfigMap
from kaito.workspace.hub.record import read_record
from test.support.hub_server import safetensors
from test.support.model_fixtures import CONFIGS, document_of, fixture_of

PHI = "microsoft--phi-4.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory with the configuration of SmolLM2."""
    document = document_of(fixture_of("HuggingFaceTB/SmolLM2-135M-Instruct"))
    (tmp_path / "config.json").write_text(json.dumps(document["config.json"]))
    (tmp_path / "model.safetensors").write_bytes(safetensors({"w": ("BF16", [576, 1000], 1_152_000)}) + bytes(1000))
    return tmp_path


def run(*arguments: str) -> int:
    return model.run(parser().parse_args(["model", *arguments]))


def test_the_catalog_agrees_with_the_fixtures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalog", "--check", "--directory", str(CONFIGS / "catalog")) == 0
    assert capsys.readouterr().out == f"{len(catalog.presets())} presets compared, 0 differ\n"


def test_a_wrong_figure_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As if the second copy of the weights of gpt-oss counted, and the context were another one."""
    document = document_of(CONFIGS / "catalog" / "openai--gpt-oss-120b.json")
    document["files"]["second.safetensors"] = 65_248_815_744
    document["config.json"]["rope_scaling"]["factor"] = 16.0
    (tmp_path / "openai--gpt-oss-120b.json").write_text(json.dumps(document))

    assert run("catalog", "gpt-oss-120b", "gpt-oss-20b", "--check", "--directory", str(tmp_path)) == 1
    assert capsys.readouterr().out.splitlines() == [
        "gpt-oss-120b: weights: 60.8 GiB in the catalog, 121.5 GiB in the files",
        "gpt-oss-120b: context: 131072 in the catalog, 65536 in the files",
        "gpt-oss-20b: no files in the directory",
        "2 presets compared, 2 differ",
    ]


def test_the_catalog_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("catalog") == 0
    assert "microsoft/phi-4\n" in capsys.readouterr().out


def test_a_directory_gives_a_config_map(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(directory), "--facts", "mine") == 0
    text = capsys.readouterr().out
    assert '  facts.json: |\n    {\n      "facts": {' in text
    found = ConfigMap.model_validate(yaml.safe_load(text))

    facts = read_record(found).facts
    assert found.name == "mine"
    assert (facts.kv_bytes_per_token, facts.parameters, facts.context) == (23040, 576_000, 8192)


def test_the_facts_are_printed_in_words(directory: Path) -> None:
    text = "\n".join(model_facts.lines(model_facts.facts_of_directory(directory)))

    assert "attention:     GQA: 30 layers, 9 heads, 3 key-value heads of 64" in text
    assert "cache:         23040 bytes per token at 16 bits" in text
    assert "runtimes:      vllm, transformers" in text


def test_a_directory_that_is_not_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"has no config\.json"):
        model_facts.facts_of(str(tmp_path))


def test_a_broken_index_is_named(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text("{")
    with pytest.raises(LookupError, match=r"has a model\.safetensors\.index\.json that is not JSON"):
        model_facts.facts_of(str(directory))


def test_entries_of_a_header_that_are_no_tensors_do_not_count(directory: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": ["x", 2]}, "v": {"dtype": "BF16", "shape": [3, 2]}}).encode()
    (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(100))
    assert model_facts.facts_of(str(directory)).parameters == 6


@pytest.mark.parametrize(
    ("source", "is_model"),
    [
        ("org/name", True),
        ("org/name@v1", True),
        ("registry.example/name:1", False),
        ("localhost/name", False),
        ("host:5000/name", False),
        ("name", False),
        ("a/b/c", False),
    ],
)
def test_a_model_id_is_not_an_image_reference(source: str, *, is_model: bool) -> None:
    assert model_facts.is_model(source) is is_model


def test_an_unreachable_hub_is_reported() -> None:
    with pytest.raises(LookupError, match=r"cannot be read from http://127\.0\.0\.1:9"):
        model_facts.facts_of("org/name", endpoint="http://127.0.0.1:9")


def test_a_model_directory_of_the_catalog_is_compared(tmp_path: Path) -> None:
    shutil.copy(CONFIGS / "catalog" / PHI, tmp_path / PHI)

    report, wrong = model_facts.check_catalog(["phi-4"], tmp_path)

    assert (report, wrong) == ("1 presets compared, 0 differ", 0)
