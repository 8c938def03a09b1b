"""`GET /progress` of both servers while they start."""

import asyncio
from pathlib import Path

import pytest
from kaito_presets.inference.service import GenerationService
from kaito_presets.serving.progress import StartFigures, StartProgress, download_cache
from kaito_presets.vllm.engine import LOADED, Engine
from kaito_presets.vllm.figures import EngineFigures
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
    lines = (
        "starting",
        f"(Worker_TP0) INFO gpu_model_runner.py: {LOADED} 2.5 GiB memory and 3.1 seconds",
        f"(Worker_TP1) INFO gpu_model_runner.py: {LOADED} 2.25 GiB memory and 3.1 seconds",
        "(EngineCore) INFO [kv_cache_utils.py:1301] GPU KV cache size: 1,283,456 tokens",
        "(EngineCore) INFO [kv_cache_utils.py:1306] Maximum concurrency for 131,072 tokens per request: 9.79x",
    )
    script = "; ".join(f"echo '{line}'" for line in lines)
    engine = Engine(["/bin/sh", "-c", script], on_loaded=lambda: calls.append("loaded"))
    await engine.start()
    async with asyncio.timeout(20):
        assert await engine.wait() == 0
    assert calls == ["loaded", "loaded"]
    figures = engine.figures.complete()
    assert (figures.weights_bytes, figures.cache_tokens, figures.context_tokens) == (4.75 * 2**30, 1283456, 131072)
    assert figures.load_seconds > 0
    later = EngineFigures()
    later.read("GPU KV cache size: 1,024 tokens, Maximum concurrency for 512 tokens per request: 2.00x")
    later.read("GPU KV cache size: , tokens")
    assert (later.complete().cache_tokens, later.complete().context_tokens) == (1024, 512)
    assert later.complete().cache_bytes == 0


def test_the_smallest_cache_of_the_gpus_is_reported() -> None:
    figures = EngineFigures()
    figures.read("(Worker_TP0 pid=71) INFO 11-26 15:25:25 [gpu_worker.py:298] Available KV cache memory: 12.50 GiB")
    figures.read("(Worker_TP1 pid=72) INFO 11-26 15:25:25 [gpu_worker.py:298] Available KV cache memory: 12.25 GiB")
    figures.read("(Worker_TP2 pid=73) INFO 11-26 15:25:25 [gpu_worker.py:298] Available KV cache memory: 13 GiB")
    assert figures.complete().cache_bytes == 12.25 * 2**30


async def test_a_ready_server_reports_the_figures_of_its_start(serve: Serve) -> None:
    server = await serve()
    server.lifecycle.progress.figures = StartFigures(load_seconds=3.14159, weights_bytes=7, cache_tokens=9)
    figures = {
        "loadSeconds": 3.1,
        "weightsBytes": 7,
        "cacheTokens": 9,
        "contextTokens": 0,
        "cacheBytes": 0,
        "peakBytes": 0,
    }
    assert await server.get("/progress") == (200, {"phase": "ready", "figures": figures})
    await server.lifecycle.drain(1)
    assert await server.get("/progress") == (200, {"phase": "draining"})
