"""Keys and values of prompt prefixes that later prompts reuse, such as a system prompt that many requests share.

Used by `prompts` and `model` on the scheduler's thread. A prefix is stored in blocks of `BLOCK_TOKENS` tokens, which
form a tree: a block is valid only after the blocks before it. Keys and values are copied into and out of the cache, and
never shared with a running row, so a block can be evicted at any time. Guarantees:

* A prefix is found only under the key with which it was stored. The key contains everything besides the tokens that
  determines keys and values, such as the adapter and its strength.
* The blocks use at most `limit_bytes`. The least recently used one is evicted, and always before the blocks that it
  extends.
* Keys and values with NaN or infinity are not stored: an arithmetic failure of one request does not affect others.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch

from kaito_presets.inference.backend.key_values import Layer

BLOCK_TOKENS: Final = 32
"""Tokens of a block. A prefix is reused in whole blocks; smaller ones reuse more of it and cost more to find."""

TokenBlock = tuple[int, ...]


@final
@dataclass(slots=True, eq=False)
class PrefixBlock:
    """Keys and values of the last `BLOCK_TOKENS` tokens of a prefix."""

    tokens: TokenBlock = ()
    parent: "PrefixBlock | None" = None
    values: tuple[torch.Tensor, ...] = ()
    """One flat tensor for each device."""
    children: "dict[TokenBlock, PrefixBlock]" = field(default_factory=dict["TokenBlock", "PrefixBlock"])


@dataclass(frozen=True, slots=True)
class _Span:
    """Position of the keys or values of a layer in a block."""

    part: int
    offset: int
    heads: int
    size: int

    def of(self, stacked: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns a view of the keys or values in stacked blocks, `[heads, blocks, BLOCK_TOKENS, size]`."""
        blocks = stacked[self.part][:, self.offset : self.offset + self.heads * BLOCK_TOKENS * self.size]
        return blocks.view(len(blocks), self.heads, BLOCK_TOKENS, self.size).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class _Format:
    """Format of a block, which the layers of the model determine."""

    spans: tuple[tuple[_Span, _Span], ...]
    """Keys and values of each layer."""
    parts: tuple[tuple[torch.device, torch.dtype, int], ...]
    """Device, number format and length of each flat tensor."""

    @property
    def block_bytes(self) -> int:
        return sum(length * dtype.itemsize for _, dtype, length in self.parts)


@final
class PrefixCache:
    """Prefixes of one model, least recently used first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._roots: dict[Hashable, PrefixBlock] = {}
        self._used: OrderedDict[PrefixBlock, None] = OrderedDict()
        """All blocks. Every use of a block moves the blocks before it behind it, so the first one has no children."""
        self._format: _Format | None = None
        self.limit_bytes = limit_bytes
        self.hits = 0
        """Prompts that began with a stored prefix."""
        self.reused_tokens = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all blocks."""
        return len(self._used) * self._format.block_bytes if self._format else 0

    def depth(self, key: Hashable, blocks: Sequence[TokenBlock]) -> int:
        """Counts the leading blocks that are stored."""
        return len(self._path(key, blocks))

    def lookup(self, key: Hashable, blocks: Sequence[TokenBlock]) -> list[PrefixBlock]:
        """Returns the stored leading blocks and marks them as used."""
        path = self._path(key, blocks)
        self._touch(path)
        return path

    def copy_to(self, path: Sequence[PrefixBlock], layers: Sequence[Layer], row: int, start: int) -> None:
        """Copies the blocks of a path into columns of a row, from `start` on; allocates the layers if necessary."""
        shape = self._format
        if shape is None or not path:
            return
        stacked = [torch.stack([block.values[part] for block in path]) for part in range(len(shape.parts))]
        end = start + len(path) * BLOCK_TOKENS
        for layer, spans in zip(layers, shape.spans, strict=True):
            keys, values = (span.of(stacked) for span in spans)
            if not layer.is_initialized:
                layer.lazy_initialization(keys.transpose(0, 1), values.transpose(0, 1))
            for buffer, source in ((layer.key_buffer, keys), (layer.value_buffer, values)):
                buffer[row, :, start:end].unflatten(1, (len(path), BLOCK_TOKENS)).copy_(source)

    def insert(
        self, key: Hashable, blocks: Sequence[TokenBlock], layers: Sequence[Layer], row: int, start: int
    ) -> None:
        """Stores a prefix, whose keys and values are in the columns of a row from `start` on."""
        shape = self._format = self._format or _format_of(layers)
        blocks = blocks[: self.limit_bytes // shape.block_bytes]
        path = self._path(key, blocks)
        new = blocks[len(path) :]
        if not new:
            self._touch(path)
            return
        stacked = [torch.empty((len(new), length), device=at, dtype=dtype) for at, dtype, length in shape.parts]
        begin, end = start + len(path) * BLOCK_TOKENS, start + len(blocks) * BLOCK_TOKENS
        for layer, spans in zip(layers, shape.spans, strict=True):
            for buffer, span in zip((layer.key_buffer, layer.value_buffer), spans, strict=True):
                span.of(stacked).copy_(buffer[row, :, begin:end].unflatten(1, (len(new), BLOCK_TOKENS)))
        if not all(bool(torch.isfinite(part).all()) for part in stacked):
            return
        added: list[PrefixBlock] = []
        parent = path[-1] if path else self._roots.setdefault(key, PrefixBlock())
        for index, tokens in enumerate(new):
            # Separate tensors, so that an evicted block gives its memory back.
            parent = PrefixBlock(tokens, parent, tuple(part[index].clone() for part in stacked))
            added.append(parent)
        for block in reversed(added):
            self._used[block] = None
        for block in added:
            if block.parent is not None:
                block.parent.children[block.tokens] = block
        self._touch([*path, *added])
        self._evict()

    def shrink(self, limit_bytes: int) -> None:
        """Sets the limit, at most the one of the constructor, and evicts what exceeds it."""
        self.limit_bytes = max(0, min(self._limit, limit_bytes))
        self._evict()

    def clear(self) -> None:
        """Evicts everything."""
        self._roots.clear()
        self._used.clear()

    def _path(self, key: Hashable, blocks: Sequence[TokenBlock]) -> list[PrefixBlock]:
        path: list[PrefixBlock] = []
        block = self._roots.get(key)
        for tokens in blocks:
            block = block.children.get(tokens) if block is not None else None
            if block is None:
                break
            path.append(block)
        return path

    def _touch(self, path: Sequence[PrefixBlock]) -> None:
        for block in reversed(path):
            self._used.move_to_end(block)

    def _evict(self) -> None:
        while self.used_bytes > self.limit_bytes:
            block = next(iter(self._used))
            if block.parent is not None and block.parent.children.get(block.tokens) is block:
                del block.parent.children[block.tokens]
            del self._used[block]


def token_blocks(tokens: Sequence[int]) -> list[TokenBlock]:
    """Splits tokens into blocks; an incomplete block at the end is left out."""
    count = len(tokens) // BLOCK_TOKENS
    return [tuple(tokens[index * BLOCK_TOKENS : (index + 1) * BLOCK_TOKENS]) for index in range(count)]


def common_blocks(left: Sequence[TokenBlock], right: Sequence[TokenBlock]) -> int:
    """Counts the leading blocks that are equal."""
    count = 0
    for ours, theirs in zip(left, right, strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _format_of(layers: Sequence[Layer]) -> _Format:
    lengths: dict[tuple[torch.device, torch.dtype], int] = {}

    def span(buffer: torch.Tensor) -> _Span:
        kind = (buffer.device, buffer.dtype)
        offset = lengths.setdefault(kind, 0)
        heads, size = buffer.shape[1], buffer.shape[3]
        lengths[kind] = offset + heads * BLOCK_TOKENS * size
        return _Span(list(lengths).index(kind), offset, heads, size)

    spans = tuple((span(layer.key_buffer), span(layer.value_buffer)) for layer in layers)
    return _Format(spans, tuple((device, dtype, length) for (device, dtype), length in lengths.items()))
