"""The model that pods of the local cluster serve."""

from pathlib import Path

import pytest

from kaito.local.presets import COMPLETE, REAL, ModelMissing, local_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models in the user's cache: the tiny one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = tmp_path / "kaito" / "models" / "tiny-phi-3"
    tiny.mkdir(parents=True)
    (tiny / "config.json").write_text("{}")
    return tiny.parent


async def found(named: str, tmp_path: Path) -> tuple[str, str]:
    model = await local_model(named, tmp_path / "presets", tmp_path, lambda _: None)
    return model.directory.name, model.description


async def test_the_real_model_is_served_once_it_is_complete(cache: Path, tmp_path: Path) -> None:
    assert (await found("", tmp_path))[0] == "tiny-phi-3"
    (cache / REAL).mkdir()
    assert (await found("", tmp_path))[0] == "tiny-phi-3", "an interrupted conversion"
    (cache / REAL / COMPLETE).touch()
    assert await found("", tmp_path) == (REAL, f"{REAL}, 135 million parameters, in place of the preset's model")
    name, description = await found("tiny", tmp_path)
    assert (name, "random weights" in description) == ("tiny-phi-3", True)


@pytest.mark.usefixtures("cache")
async def test_a_directory_is_served_if_it_contains_a_model(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with pytest.raises(ModelMissing, match=r"--model: .*/mine does not contain config\.json"):
        await found(str(mine), tmp_path)
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    assert await found(str(mine), tmp_path) == ("mine", "mine in place of the preset's model")
