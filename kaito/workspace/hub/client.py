"""Reads one model: its description, config.json, and the index and headers of its weights."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, final
from urllib.parse import quote

import aiohttp

from kaito.api import conditions
from kaito.api.json_values import json_list, json_object
from kaito.models.facts.derive import ModelFacts, Source, derive_facts
from kaito.models.facts.documents import parse_config
from kaito.models.facts.errors import FactsError
from kaito.models.facts.weight_files import (
    CONFIG,
    MISTRAL_CONFIG,
    QUANTIZATION,
    WeightFiles,
    count_tensors,
    index_of,
    select_weights,
)
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.transfer import CONNECT_SECONDS, READ_SECONDS, HubTransfer

READ_LIMIT_SECONDS: Final = 120.0
"""Time limit of all requests of one read."""

MAX_DESCRIPTION_BYTES: Final = 16 * 2**20
MAX_CONFIG_BYTES: Final = 4 * 2**20
MAX_INDEX_BYTES: Final = 128 * 2**20
"""Indexes are read as a stream: only the names of the files are kept."""
MAX_HEADER_BYTES: Final = 16 * 2**20
MAX_FILES: Final = 10_000

MAX_HEADER_FILES: Final = 4
"""Files whose headers are read for the number of parameters, if the hub does not know it."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_INDEXED: Final = re.compile(rb':\s*"([^"\\\x00-\x1f]{1,255}\.safetensors)"')
_TAIL_BYTES: Final = 512


@final
class HubClient:
    """Reads models from one hub.

    Args:
        endpoint: address of Hugging Face or of a mirror; empty if the network must not be used.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint: Final = endpoint

    async def read(self, query: ModelQuery) -> ModelFacts:
        """Returns the facts of a model at the commit that its revision names now.

        Raises:
            ModelUnavailable: they cannot be read, or the model cannot be served.
        """
        if not self.endpoint:
            raise ModelUnavailable(
                conditions.MODEL_UNREACHABLE,
                f"{query.reference} is not read, because --hub-endpoint is empty: give its facts in "
                "presetOptions.modelFacts",
            )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        try:
            async with (
                asyncio.timeout(READ_LIMIT_SECONDS),
                aiohttp.ClientSession(timeout=timeout, trust_env=True, headers={"User-Agent": "kaito"}) as session,
            ):
                transfer = HubTransfer(session, self.endpoint, query.token, str(query.reference))
                return await _read(transfer, query)
        except TimeoutError as error:
            raise ModelUnavailable(
                conditions.MODEL_UNREACHABLE,
                f"{query.reference} was not read from {self.endpoint} within {READ_LIMIT_SECONDS:.0f} s",
                is_transient=True,
            ) from error
        except FactsError as error:
            raise ModelUnavailable(error.reason, f"{query.reference} {error}") from error


async def _read(transfer: HubTransfer, query: ModelQuery) -> ModelFacts:
    reference = query.reference
    revision = quote(reference.revision or "main", safe="")
    body = await transfer.read(
        f"/api/models/{reference.model}/revision/{revision}", limit=MAX_DESCRIPTION_BYTES, query={"blobs": "true"}
    )
    description = _object(body, f"the description of {reference}")
    commit = description.get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _malformed(f"the description of {reference} names no commit")
    name = description.get("id")
    model = name if isinstance(name, str) and name.lower() == reference.model.lower() else reference.model
    root = f"/{model}/resolve/{commit}"
    sizes = await _sizes(transfer, root, description)
    index = index_of(sizes)
    indexed = await _indexed_files(transfer, f"{root}/{index}") if index else ()
    weights = select_weights(sizes, indexed)
    config = parse_config(
        await transfer.read(f"{root}/{MISTRAL_CONFIG if weights.is_mistral_format else CONFIG}", limit=MAX_CONFIG_BYTES)
    )
    quantization: Mapping[str, Any] = {}
    if QUANTIZATION in sizes and "quantization_config" not in config:
        quantization = _object(await transfer.read(f"{root}/{QUANTIZATION}", limit=MAX_CONFIG_BYTES), QUANTIZATION)
    tensors = _counted(description) or await _tensors(transfer, root, weights, sizes)
    source = Source(
        model=model,
        config=config,
        weights=weights,
        revision=commit,
        tensors=tensors,
        quantization=quantization,
        license=_license(description),
        gated=bool(description.get("gated")),
    )
    return derive_facts(source, trust_remote_code=query.trust_remote_code)


async def _sizes(transfer: HubTransfer, root: str, description: Mapping[str, Any]) -> dict[str, int]:
    """Returns the bytes of every file; requests those that a mirror does not list."""
    listed = json_list(description.get("siblings"))[:MAX_FILES]
    sizes: dict[str, int] = {}
    for entry in map(json_object, listed):
        name, size = entry.get("rfilename"), entry.get("size")
        if isinstance(name, str):
            sizes[name] = size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else -1
    for name in [name for name, size in sizes.items() if size < 0]:
        sizes[name] = 0
        if "/" not in name and name.endswith(".safetensors"):
            async with transfer.get(f"{root}/{quote(name)}", headers={"Range": "bytes=0-0"}) as response:
                sizes[name] = _whole_size(response.headers)
    return sizes


def _whole_size(headers: Mapping[str, str]) -> int:
    total = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
    return int(total) if total.isascii() and total.isdecimal() and len(total) < 20 else 0


async def _indexed_files(transfer: HubTransfer, path: str) -> Sequence[str]:
    """Returns the names of the files in an index, without holding the whole index in memory."""
    names: set[str] = set()
    tail, received = b"", 0
    async with transfer.get(path) as response:
        async for chunk in response.content.iter_chunked(2**18):
            received += len(chunk)
            if received > MAX_INDEX_BYTES or len(names) > MAX_FILES:
                raise ModelUnavailable(conditions.MODEL_INVALID, f"{path} is too large")
            text = tail + chunk
            names.update(found.group(1).decode("utf-8", "replace") for found in _INDEXED.finditer(text))
            tail = text[-_TAIL_BYTES:]
    if not names:
        raise ModelUnavailable(conditions.MODEL_INVALID, f"{path} names no files")
    return sorted(names)


def _counted(description: Mapping[str, Any]) -> dict[str, int]:
    """Returns the numbers by format that the hub has counted."""
    found = json_object(json_object(description.get("safetensors")).get("parameters"))
    return {kind: count for kind, count in found.items() if isinstance(count, int) and not isinstance(count, bool)}


async def _tensors(
    transfer: HubTransfer, root: str, weights: WeightFiles, sizes: Mapping[str, int]
) -> Mapping[str, int]:
    """Returns the numbers by format from the headers of the files; empty if there are many files."""
    if len(weights.names) > MAX_HEADER_FILES:
        return {}
    counts: Counter[str] = Counter()
    for name in weights.names:
        path = f"{root}/{quote(name)}"
        length = int.from_bytes(await transfer.read_range(path, 0, 8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, sizes[name] - 8):
            raise ModelUnavailable(conditions.MODEL_INVALID, f"{path} is not a safetensors file")
        counts.update(count_tensors(_object(await transfer.read_range(path, 8, length), path)))
    return counts


def _license(description: Mapping[str, Any]) -> str:
    found: Any = json_object(description.get("cardData")).get("license")
    first: Any = json_list(found)[0] if json_list(found) else found
    return first[:128] if isinstance(first, str) else ""


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"{what} is not JSON") from error
    found = json_object(document)
    if not found:
        raise _malformed(f"{what} is not a JSON object")
    return found


def _malformed(message: str) -> ModelUnavailable:
    """Returns the error of an answer that is not one of the hub; a proxy may have written it."""
    return ModelUnavailable(
        conditions.MODEL_UNREACHABLE, f"{message}: check --hub-endpoint and the proxy", is_transient=True
    )
