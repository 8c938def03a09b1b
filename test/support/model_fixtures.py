"""Reads the fixtures in `test/unit/models/configs`: config.json and the sizes of the files."""

import json
from pathlib import Path
from typing import Any

from kaito.models.facts.derive import ModelFacts, Source, derive_facts
from kaito.models.facts.weight_files import select_weights

CONFIGS = Path(__file__).parents[1] / "unit" / "models" / "configs"


def fixtures(folder: str) -> list[Path]:
    """Returns the fixtures of a folder: `catalog` has one for each entry of the catalog, `others` further models."""
    return sorted((CONFIGS / folder).glob("*.json"))


def document_of(path: Path) -> dict[str, Any]:
    """Returns the content of a fixture."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def facts_of(path: Path, *, trust_remote_code: bool = False) -> ModelFacts:
    """Returns the facts of a fixture."""
    content = document_of(path)
    source = Source(
        model=content["model"],
        config=content.get("config.json") or content["params.json"],
        weights=select_weights(content["files"]),
        tensors=content.get("tensors", {}),
        quantization=content.get("hf_quant_config.json", {}),
    )
    return derive_facts(source, trust_remote_code=trust_remote_code)


def fixture_of(model: str) -> Path:
    """Returns the fixture of a model outside the catalog."""
    return CONFIGS / "others" / f"{model.replace('/', '--')}.json"
