"""The registry of the tuning demonstration: an image is pushed and pulled by the project's own client."""

import asyncio
import json
from pathlib import Path

import aiohttp
from kaito_oci.adapter_image import check_push, pull_image, push_adapter
from kaito_oci.reference import parse_reference

from kaito.local.registry import local_registry


async def test_adapter_is_pushed_and_pulled(tmp_path: Path) -> None:
    source = tmp_path / "adapter"
    source.mkdir()
    (source / "adapter_config.json").write_text(json.dumps({"r": 4}))
    (source / "adapter_model.safetensors").write_bytes(b"weights")
    async with local_registry() as address:
        image = parse_reference(f"{address}/adapters/a:1")
        await asyncio.to_thread(check_push, image)
        digest = await asyncio.to_thread(push_adapter, source, image)
        names = await asyncio.to_thread(pull_image, image, tmp_path / "pulled")
        pinned = parse_reference(f"{address}/adapters/a@{digest}")
        await asyncio.to_thread(pull_image, pinned, tmp_path / "pinned")
    assert sorted(names) == ["adapter_config.json", "adapter_model.safetensors"]
    for folder in ("pulled", "pinned"):
        assert (tmp_path / folder / "adapter_model.safetensors").read_bytes() == b"weights"


async def test_what_is_not_stored_is_reported() -> None:
    async with local_registry() as address, aiohttp.ClientSession(f"http://{address}") as session:
        for path in ("/v2/a/manifests/1", "/v2/a/blobs/sha256:0"):
            async with session.get(path) as response:
                assert response.status == 404
                assert (await response.json())["errors"][0]["code"].endswith("_UNKNOWN")
        async with session.post("/v2/a/blobs/uploads/") as response:
            location = response.headers["Location"]
        async with session.put(location, params={"digest": "sha256:0"}, data=b"x") as response:
            assert response.status == 400
        async with session.delete(location) as response:
            assert response.status == 204
        async with session.patch(location, data=b"x") as response:
            assert response.status == 404
