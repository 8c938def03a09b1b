"""`GET /progress` of both servers while they start."""

import asyncio
from pathlib import Path

import pytest
from kaito_presets.inference.service import GenerationService
from kaito_presets.serving.progress import StartProgress, download_cache
from kaito_presets.vllm.engine import LOADED, Engine
from running_server import Serve


async def test_route_reports_the_phases_of_a_start(serve: Serve) -> None:
    server = await serve(ready=False)
    assert await server.get("/progress") == (200, {"phase": "loading"})
    server.lifecycle.progress.set_warming()
    assert await server.get("/progress") == (200, {"phase": "warming"})
    server.lifecycle.set_ready(GenerationService(server.model, server.scheduler, server.metrics))
    assert await server.get("/progress") == (200, {"phase": "ready"})
    await server.lifecycle.drain(1)
    assert await server.get("/progress") == (200, {"phase": "draining"})


def test_incomplete_files_in_the_cache_are_a_download(tmp_path: Path) -> None:
    cache = download_cache("org/model", str(tmp_path))
    assert cache is not None
    assert cache == tmp_path / "models--org--model"
    progress = StartProgress(cache)
    assert progress.document("Loading") == {"phase": "loading"}, "no cache yet"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / "a").write_bytes(b"x" * 700)
    (cache / "blobs" / "b.incomplete").write_bytes(b"x" * 50)
    assert progress.document("Loading") == {"phase": "downloading", "bytes": 750}
    assert progress.document("Healthy") == {"phase": "ready"}
    (cache / "blobs" / "b.incomplete").rename(cache / "blobs" / "b")
    assert progress.document("Loading") == {"phase": "loading"}


def test_cache_of_the_environment_is_used_unless_the_options_set_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", "/home")
    assert download_cache("org/model", None) == Path("/home/hub/models--org--model")
    monkeypatch.setenv("HF_HUB_CACHE", "/cache")
    assert download_cache("org/model", None) == Path("/cache/models--org--model")
    assert download_cache(str(tmp_path), None) is None, "a local directory"


async def test_engine_reports_that_the_weights_are_loaded() -> None:
    calls: list[str] = []
    script = f"echo starting; echo 'INFO gpu_model_runner.py: {LOADED} 2.5 GiB memory and 3.1 seconds'"
    engine = Engine(["/bin/sh", "-c", script], on_loaded=lambda: calls.append("loaded"))
    await engine.start()
    async with asyncio.timeout(20):
        assert await engine.wait() == 0
    assert calls == ["loaded"]
