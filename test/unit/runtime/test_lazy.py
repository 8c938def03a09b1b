"""Programs are imported without garbage collections, which go on afterwards."""

import gc
import sys
from pathlib import Path

import pytest

from kaito.runtime.lazy import load_program

COLLECTING = "kept = [[] for _ in range(200_000)]\n"
"""Enough containers for several collections."""


def test_no_collection_during_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "many_objects.py").write_text(COLLECTING)
    (tmp_path / "broken_program.py").write_text("import does_not_exist\n")
    collections: list[str] = []

    def record(phase: str, info: dict[str, int]) -> None:
        collections.append(f"{phase} {info['generation']}")

    gc.callbacks.append(record)
    try:
        assert len(load_program("many_objects").kept) == 200_000
        assert collections == []
        assert gc.isenabled()
        exec(COLLECTING, {})
        assert collections
        with pytest.raises(ModuleNotFoundError):
            load_program("broken_program")
        assert gc.isenabled()
    finally:
        gc.callbacks.remove(record)
        sys.modules.pop("many_objects", None)
