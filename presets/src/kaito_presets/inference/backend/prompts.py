"""Computes the keys and values of prompts in slices, before their rows are added to the batch.

Used by `model` on the scheduler's thread. A slice is one forward pass, so the batch can make a step between two of
them. Short prompts of one batch are computed together; a longer one is computed alone, in several slices. Each begins
after the prefix that `PrefixCache` has stored. Guarantees:

* A slice that fails has no effect: the same prompts continue from the same position, together or separately.
* Prompts with a common prefix compute it once, also if they arrive together: the others wait for the first one.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from transformers.cache_utils import Cache

from kaito_presets.inference.backend.key_values import Extent, Layer
from kaito_presets.inference.backend.prefix_cache import (
    BLOCK_TOKENS,
    PrefixBlock,
    PrefixCache,
    TokenBlock,
    common_blocks,
    token_blocks,
)
from kaito_presets.inference.backend.sampling import token_logprobs
from kaito_presets.inference.language_model import Row, TokenLogprob

SLICE_TOKENS: Final = 2048
"""Most tokens of one forward pass. The memory of activations grows with them."""
SCORED_SLICE_TOKENS: Final = 1024
"""The same if log probabilities of the prompt are requested. The logits of every position are in memory then: 1024
tokens of a vocabulary of 128,000 are 0.5 GB in float32."""
PADDING_SHARE: Final = 0.25
"""Most padding of prompts that are computed together, as a share of their tokens."""

BatchKey = tuple[str | None, bool]


@final
@dataclass(slots=True, eq=False)
class Reading:
    """Prompts that are computed together, aligned on the right, with a cache of their own."""

    key: BatchKey
    rows: list[Row]
    starts: list[int]
    """First column of each row."""
    width: int
    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor | None
    layers: list[Layer]
    cache: Cache
    extent: Extent
    done: int
    """Columns that are computed or copied from the prefix cache."""
    scores: list[TokenLogprob | None]
    """Log probabilities of the prompt up to `done`, if requested."""


@final
class PromptReader:
    """The prompts of all rows that are not in a batch yet."""

    def __init__(
        self,
        model: Any,
        *,
        layers: int,
        pad_token: int,
        keep_logits: bool,
        prefixes: PrefixCache | None,
        batch_key: Callable[[Row], BatchKey],
        prefix_key: Callable[[BatchKey], Hashable],
    ) -> None:
        self._model = model
        self._layers = layers
        self._pad = pad_token
        self._tail = {"logits_to_keep": 1} if keep_logits else {}
        self._prefixes = prefixes
        self._batch_key = batch_key
        self._prefix_key = prefix_key
        self._readings: dict[Row, Reading] = {}
        """Rows whose prompts are computed in part."""
        self._blocks: dict[Row, list[TokenBlock]] = {}

    @property
    def rows(self) -> Collection[Row]:
        """Rows whose prompts are computed in part."""
        return self._readings.keys()

    def select(self, rows: Sequence[Row], limit: int) -> Reading:
        """Selects the prompts of the next slice: the first of `rows`, with others that fit into `limit` tokens."""
        unfinished = [self._readings[row] for row in rows if row in self._readings]
        for index, row in enumerate(rows):
            if row in self._readings:
                return self._readings[row]
            if not self._shares_prefix(row, [reading.rows[0] for reading in unfinished]):
                others = [other for other in rows[index + 1 :] if other not in self._readings]
                return self._start(row, others, unfinished, limit)
        return unfinished[0]

    @torch.inference_mode()
    def advance(self, reading: Reading, limit: int) -> torch.Tensor | None:
        """Computes the next slice.

        Returns:
            Logits of the next token of each row, `[rows, vocabulary]`, if the prompts are complete; else None.
        """
        rows, extent = reading.rows, reading.extent
        scored = rows[0].prompt_logprobs is not None
        size = max(1, min(limit, SCORED_SLICE_TOKENS if scored else SLICE_TOKENS) // len(rows))
        begin, end = reading.done, min(reading.width, reading.done + size)
        extent.columns = begin
        output = self._model(
            input_ids=reading.tokens[:, begin:end],
            attention_mask=None if reading.mask is None else reading.mask[:, :end],
            position_ids=reading.positions[:, begin:end],
            past_key_values=reading.cache,
            use_cache=True,
            **({} if scored else self._tail),
        )
        extent.columns = end
        scores = reading.scores
        if scored:
            last = min(end, reading.width - 1)
            found = output.logits[0, : last - begin]
            scores = [*scores, *_scores(found, reading.tokens[0, begin + 1 : last + 1], rows[0].prompt_logprobs or 0)]
        for index, (row, start) in enumerate(zip(rows, reading.starts, strict=True)):
            blocks = self._blocks_of(row)[: (end - start) // BLOCK_TOKENS]
            self.remember(reading.key, blocks, reading.layers, index, start)
        if end < reading.width:
            self._commit(reading, end, scores)
            return None
        for row in rows:
            if scored:
                row.prompt_token_logprobs = scores
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def remember(
        self, key: BatchKey, blocks: Sequence[TokenBlock], layers: Sequence[Layer], row: int, start: int
    ) -> None:
        """Stores a prefix whose keys and values are in a row of `layers`, from column `start` on."""
        if self._prefixes is None or not blocks:
            return
        try:
            self._prefixes.insert(self._prefix_key(key), blocks, layers, row, start)
        except torch.OutOfMemoryError:
            # Prefixes only save time. Without them, the rows may still have enough memory.
            self._prefixes.clear()

    def drop(self, rows: Sequence[Row]) -> None:
        """Drops rows that are complete, or that are not needed any more."""
        for row in rows:
            self._readings.pop(row, None)
            self._blocks.pop(row, None)

    def clear(self) -> None:
        """Drops everything, also the stored prefixes."""
        self._readings.clear()
        self._blocks.clear()
        if self._prefixes is not None:
            self._prefixes.clear()

    def _commit(self, reading: Reading, done: int, scores: list[TokenLogprob | None]) -> None:
        """Records a slice. Only assignments, which cannot fail."""
        reading.done, reading.scores = done, scores
        for row, start in zip(reading.rows, reading.starts, strict=True):
            self._readings[row] = reading
            row.prompt_tokens_read = done - start

    # Selection.

    def _start(self, first: Row, others: Sequence[Row], unfinished: Sequence[Reading], limit: int) -> Reading:
        key = self._batch_key(first)
        rows = [first]
        lengths = [self._remaining(first)]
        if lengths[0] <= limit and first.prompt_logprobs is None:
            taken = [reading.rows[0] for reading in unfinished]
            for other in others:
                length = self._remaining(other)
                total, padded = sum(lengths) + length, (len(rows) + 1) * max(*lengths, length)
                if padded > limit or padded > total * (1 + PADDING_SHARE):
                    continue
                if self._batch_key(other) != key or other.prompt_logprobs is not None:
                    continue
                if not self._shares_prefix(other, [*taken, *rows]):
                    rows.append(other)
                    lengths.append(length)
        return self._open(key, rows, max(lengths))

    def _open(self, key: BatchKey, rows: list[Row], computed: int) -> Reading:
        """Allocates a cache for rows and copies their stored prefixes; `computed` columns remain."""
        width = max(len(row.prompt) for row in rows)
        starts = [width - len(row.prompt) for row in rows]
        device: torch.device = self._model.device
        tokens = torch.tensor(
            [[self._pad] * start + list(row.prompt) for row, start in zip(rows, starts, strict=True)]
        ).to(device)
        columns, offsets = torch.arange(width, device=device), torch.tensor(starts, device=device)[:, None]
        extent = Extent(rows=len(rows), columns=0, row_capacity=len(rows), column_capacity=width)
        layers = [Layer(extent) for _ in range(self._layers)]
        for index, (row, start) in enumerate(zip(rows, starts, strict=True)):
            path = self._stored(row)
            if self._prefixes is not None and path:
                self._prefixes.copy_to(path, layers, index, start)
                self._prefixes.hits += 1
                self._prefixes.reused_tokens += len(path) * BLOCK_TOKENS
            row.cached_tokens = row.prompt_tokens_read = len(path) * BLOCK_TOKENS
        return Reading(
            key=key,
            rows=rows,
            starts=starts,
            width=width,
            tokens=tokens,
            positions=(columns[None, :] - offsets).clamp_(min=0),
            mask=(columns[None, :] >= offsets) if any(starts) else None,
            layers=layers,
            cache=Cache(layers=list(layers)),
            extent=extent,
            done=width - computed,
            scores=[None],
        )

    def _stored(self, row: Row) -> list[PrefixBlock]:
        """Returns the stored prefix of a prompt. Its last token is always computed, because its logits are needed."""
        if self._prefixes is None or row.prompt_logprobs is not None:
            return []
        return self._prefixes.lookup(self._prefix_key(self._batch_key(row)), self._reusable(row))

    def _remaining(self, row: Row) -> int:
        return len(row.prompt) - self._depth(row) * BLOCK_TOKENS

    def _depth(self, row: Row) -> int:
        if self._prefixes is None or row.prompt_logprobs is not None:
            return 0
        return self._prefixes.depth(self._prefix_key(self._batch_key(row)), self._reusable(row))

    def _shares_prefix(self, row: Row, others: Sequence[Row]) -> bool:
        """Returns whether one of `others`, which are computed now, has more of this prompt than the prefix cache."""
        if self._prefixes is None or row.prompt_logprobs is not None:
            return False
        key, blocks, depth = self._batch_key(row), self._reusable(row), self._depth(row)
        return any(
            self._batch_key(other) == key and common_blocks(blocks, self._blocks_of(other)) > depth for other in others
        )

    def _reusable(self, row: Row) -> list[TokenBlock]:
        return self._blocks_of(row)[: (len(row.prompt) - 1) // BLOCK_TOKENS]

    def _blocks_of(self, row: Row) -> list[TokenBlock]:
        found = self._blocks.get(row)
        if found is None:
            found = self._blocks[row] = token_blocks(row.prompt) if self._prefixes is not None else []
        return found


def _scores(logits: torch.Tensor, targets: torch.Tensor, count: int) -> list[TokenLogprob | None]:
    """Computes the log probabilities of `targets` (`[tokens]`) from `logits` (`[tokens, vocabulary]`)."""
    values = torch.log_softmax(logits.float(), dim=-1)
    return [token_logprobs(line, target, count) for line, target in zip(values, targets.tolist(), strict=True)]
