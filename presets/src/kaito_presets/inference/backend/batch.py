"""Batch of rows with one preallocated key/value cache; rows are added and removed between two steps.

Used by `model` on the scheduler's thread. Rows are aligned on the right: the newest token of every row is in the same
column, and shorter rows start in a later column and are masked on the left.

    column     0  1  2  3  4  5 │ next
    row 0      a  b  c  d  e  f │  g      start 0
    row 1      ·  ·  ·  p  q  r │  s      start 3

* A step is therefore one forward pass that writes one column for all rows. With rows aligned on the left, every row
  would write to a different column, and the mask would differ in every step.
* New rows are prefilled in a cache of their own and copied in so that they end in the current column.
* A removed row is overwritten with the last one, so that the rows stay contiguous.
* Keys are stored after the rotary embedding, so a row can be moved sideways without changing its attention.

Guarantees the same tokens as separate runs of each row (up to floating-point rounding of batched matrix products), and
that `add` either completes or leaves rows, columns and positions unchanged.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from kaito_presets.inference.backend.sampling import token_logprobs
from kaito_presets.inference.language_model import Row, TokenLogprob

CHUNK_TOKENS: Final = 2048
"""Columns of a prompt that one forward pass computes. The memory of activations grows with them."""
SCORED_CHUNK_TOKENS: Final = 1024
"""Tokens of all rows that one forward pass computes if log probabilities of the prompt are requested. The logits of
every position are in memory then: 1024 tokens of a vocabulary of 128,000 are 0.5 GB in float32."""
FIRST_COLUMNS: Final = 256
"""Columns that a new batch allocates; the capacity doubles when they are used up."""


@final
@dataclass(slots=True)
class Extent:
    """The used and the allocated part of the cache; all layers share one object, so that they cannot differ."""

    rows: int = 0
    columns: int = 0
    row_capacity: int = 0
    column_capacity: int = 0


@final
class _Layer(CacheLayerMixin):
    """Keys and values of one layer: `[row capacity, heads, column capacity, head dimension]`, used up to `extent`."""

    is_sliding = False
    key_buffer: torch.Tensor
    value_buffer: torch.Tensor

    def __init__(self, extent: Extent) -> None:
        super().__init__()
        self.extent = extent

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocates the buffers.

        They are zeroed because attention multiplies masked values by zero, and uninitialized memory may contain NaN.
        """
        extent = self.extent
        shape = (extent.row_capacity, key_states.shape[1], extent.column_capacity)
        self.key_buffer = key_states.new_zeros((*shape, key_states.shape[3]))
        self.value_buffer = value_states.new_zeros((*shape, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the new columns and returns views of all columns up to them, without a copy."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, start = self.extent.rows, self.extent.columns
        end = start + key_states.shape[-2]
        self.key_buffer[:rows, :, start:end] = key_states
        self.value_buffer[:rows, :, start:end] = value_states
        return self.key_buffer[:rows, :, :end], self.value_buffer[:rows, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns length and offset of the keys."""
        return self.extent.columns + query_length, 0

    def get_seq_length(self) -> int:
        """Returns the number of written columns."""
        return self.extent.columns

    def get_max_length(self) -> int:
        """Returns -1: the length is not limited, because the buffers grow."""
        return -1

    def resize(self, rows: int, columns: int) -> None:
        """Moves keys and values to larger buffers."""
        for name in ("key_buffer", "value_buffer"):
            old: torch.Tensor = getattr(self, name)
            new = old.new_zeros((rows, old.shape[1], columns, old.shape[3]))
            used_rows, used_columns = self.extent.rows, self.extent.columns
            new[:used_rows, :, :used_columns] = old[:used_rows, :, :used_columns]
            setattr(self, name, new)

    def shift(self, distance: int) -> None:
        """Moves all columns to the right (positive) or left (negative); has no effect if it raises.

        Keys and values are separate buffers and each move needs memory for a copy, so the second one may fail after the
        first has been moved.
        """
        rows, columns = self.extent.rows, self.extent.columns
        moved: list[torch.Tensor] = []
        try:
            for buffer in (self.key_buffer, self.value_buffer):
                _move(buffer[:rows], columns, distance)
                moved.append(buffer)
        except BaseException:
            for buffer in moved:
                _move_back(buffer[:rows], columns, distance)
            raise

    def shift_back(self, distance: int) -> None:
        """Reverts `shift(distance)` without allocating memory, because memory is exhausted when this is needed."""
        rows, columns = self.extent.rows, self.extent.columns
        for buffer in (self.key_buffer, self.value_buffer):
            _move_back(buffer[:rows], columns, distance)


def _move(buffer: torch.Tensor, columns: int, distance: int) -> None:
    """Moves the first `columns` columns; a move to the left drops the first `-distance` of them."""
    if distance < 0:
        buffer[:, :, : columns + distance] = buffer[:, :, -distance:columns].clone()
    else:
        copy = buffer[:, :, :columns].clone()
        buffer[:, :, distance : columns + distance] = copy
        buffer[:, :, :distance] = 0


def _move_back(buffer: torch.Tensor, columns: int, distance: int) -> None:
    """Reverts `_move` in chunks that do not overlap their target, so that no temporary copy is needed.

    The columns that a move to the left has dropped are not restored: no row uses them.
    """
    size = abs(distance)
    if distance > 0:
        for begin in range(0, columns, size):
            end = min(begin + size, columns)
            buffer[:, :, begin:end] = buffer[:, :, begin + size : end + size]
    else:
        for end in range(columns - size, 0, -size):
            begin = max(0, end - size)
            buffer[:, :, begin + size : end + size] = buffer[:, :, begin:end]


@dataclass(slots=True)
class _Layout:
    """Columns of each row, and the mask and positions for the next step that follow from them."""

    starts: list[int] = field(default_factory=list[int])
    """First column of each row."""
    padded: bool = False
    mask: torch.Tensor = field(default_factory=lambda: torch.zeros((0, 0), dtype=torch.bool))
    positions: torch.Tensor = field(default_factory=lambda: torch.zeros((0, 1), dtype=torch.long))


@final
class Batch:
    """Rows that advance together. The caller activates their adapter and rotary mode before each call."""

    def __init__(self, model: Any, *, layers: int, pad_token: int, needs_window_mask: bool, keep_logits: bool) -> None:
        self._model = model
        self._layers = layers
        self._pad = pad_token
        self._needs_window_mask = needs_window_mask
        self._tail = {"logits_to_keep": 1} if keep_logits else {}
        self._device: torch.device = model.device
        self._extent = Extent()
        self._buffers = [_Layer(self._extent) for _ in range(layers)]
        self._cache = Cache(layers=list(self._buffers))
        self.rows: list[Row] = []
        self._layout = _Layout()

    @torch.inference_mode()
    def add(self, rows: Sequence[Row]) -> torch.Tensor:
        """Computes the prompts of `rows` and adds the rows.

        Sets `prompt_token_logprobs` of rows that request it. The batch is unchanged if it raises.

        Returns:
            Logits of the next token of each row, `[len(rows), vocabulary]`.
        """
        width = max(len(row.prompt) for row in rows)
        tokens = torch.tensor([[self._pad] * (width - len(row.prompt)) + list(row.prompt) for row in rows])
        tokens = tokens.to(self._device)
        starts = [width - len(row.prompt) for row in rows]
        if self.rows:
            separate = DynamicCache()
            logits = self._compute_prompts(rows, tokens, starts, separate, None)
            self._copy_in(rows, starts, width, separate)
            return logits
        # An empty batch needs no copy: the rows are computed in its own cache.
        self._reserve(len(rows), width)
        self._extent.rows, self._extent.columns = len(rows), 0
        try:
            logits = self._compute_prompts(rows, tokens, starts, self._cache, self._extent)
            layout = self._layout_of(starts, width)
        except BaseException:
            self._extent.rows = self._extent.columns = 0
            raise
        self._commit(list(rows), layout, width)
        return logits

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Computes one token of every row.

        Args:
            tokens: the newest token of every row, `[rows, 1]`.

        Returns:
            Logits of the next token of every row, `[rows, vocabulary]`.
        """
        extent = self._extent
        if extent.columns >= extent.column_capacity:
            self._extend_columns()
        rows, columns = extent.rows, extent.columns
        mask: torch.Tensor | None = None
        layout = self._layout
        if layout.padded:
            mask = layout.mask[:rows, : columns + 1]
            if not self._needs_window_mask:
                mask = mask[:, None, None, :]
        output = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=layout.positions[:rows],
            past_key_values=self._cache,
            use_cache=True,
        )
        extent.columns += 1
        layout.positions[:rows] += 1
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    @torch.inference_mode()
    def remove(self, removed: Sequence[Row]) -> None:
        """Removes rows; each is replaced by the last one."""
        removed_ids = {id(row) for row in removed}
        extent = self._extent
        rows, starts = list(self.rows), list(self._layout.starts)
        for index in range(len(rows) - 1, -1, -1):
            if id(rows[index]) not in removed_ids:
                continue
            last = len(rows) - 1
            if index != last:
                columns = extent.columns
                for layer in self._buffers:
                    layer.key_buffer[index, :, :columns] = layer.key_buffer[last, :, :columns]
                    layer.value_buffer[index, :, :columns] = layer.value_buffer[last, :, :columns]
                rows[index], starts[index] = rows[last], starts[last]
            del rows[last], starts[last]
        if not rows:
            self._commit([], _Layout(), 0)
            return
        self._commit(rows, self._layout_of(starts, extent.columns), extent.columns)
        # Every step attends to all columns, also to those before the first start, which belonged to a removed row.
        # Moving costs one copy of the cache, so it is done when more than half of the columns are unused.
        unused = min(starts)
        if unused > extent.columns // 2:
            self._shift(-unused)

    @torch.inference_mode()
    def remove_newest(self, removed: Sequence[Row]) -> None:
        """Removes the rows that were added last, without moving the others."""
        count = len(self.rows) - len(removed)
        columns = self._extent.columns if count else 0
        self._commit(self.rows[:count], self._layout_of(self._layout.starts[:count], columns), columns)

    # Prefill.

    def _compute_prompts(
        self, rows: Sequence[Row], tokens: torch.Tensor, starts: Sequence[int], cache: Cache, extent: Extent | None
    ) -> torch.Tensor:
        width = tokens.shape[1]
        columns = torch.arange(width, device=self._device)
        offsets = torch.tensor(starts, device=self._device)[:, None]
        positions = (columns[None, :] - offsets).clamp_(min=0)
        mask = (columns[None, :] >= offsets) if any(starts) else None
        scored = [index for index, row in enumerate(rows) if row.prompt_logprobs is not None]
        found: dict[int, list[TokenLogprob | None]] = {index: [None] for index in scored}
        size = max(32, SCORED_CHUNK_TOKENS // len(rows)) if scored else CHUNK_TOKENS
        logits = torch.empty(0)
        for begin in range(0, width, size):
            end = min(width, begin + size)
            output = self._model(
                input_ids=tokens[:, begin:end],
                attention_mask=None if mask is None else mask[:, :end],
                position_ids=positions[:, begin:end],
                past_key_values=cache,
                use_cache=True,
                **({} if scored else self._tail),
            )
            if extent is not None:
                extent.columns = end
            logits = output.logits[:, -1]
            for index in scored:
                first, last = max(begin, starts[index]), min(end, width - 1)
                if first < last:
                    piece = output.logits[index, first - begin : last - begin]
                    found[index] += _token_logprobs(
                        piece, tokens[index, first + 1 : last + 1], rows[index].prompt_logprobs or 0
                    )
        for index in scored:
            rows[index].prompt_token_logprobs = found[index]
        return logits

    def _copy_in(self, rows: Sequence[Row], starts: Sequence[int], width: int, separate: DynamicCache) -> None:
        """Copies rows from a separate cache, so that they end in the current column.

        If the new rows are longer than the batch, all other rows move to the right first.
        """
        extent = self._extent
        surplus = width - extent.columns
        self._reserve(len(self.rows) + len(rows), max(extent.columns, width))
        if surplus > 0:
            self._shift(surplus)
        first, last = len(self.rows), len(self.rows) + len(rows)
        begin = extent.columns - width
        for layer, source in zip(self._buffers, separate.layers, strict=True):
            read: Any = source
            # Rows from `first` on are not in use before `_commit`, so a failure in this loop has no effect.
            layer.key_buffer[first:last, :, begin : extent.columns] = read.keys
            layer.value_buffer[first:last, :, begin : extent.columns] = read.values
            # Columns before `begin` may contain data of a removed row. They are masked, and finite, so they stay.
        layout = self._layout_of([*self._layout.starts, *(begin + start for start in starts)], extent.columns)
        self._commit([*self.rows, *rows], layout, extent.columns)

    # The shape of the cache.

    def _reserve(self, rows: int, columns: int) -> None:
        extent = self._extent
        row_capacity, column_capacity = max(extent.row_capacity, 1), max(extent.column_capacity, FIRST_COLUMNS)
        while row_capacity < rows:
            row_capacity *= 2
        while column_capacity <= columns:
            column_capacity *= 2
        if (row_capacity, column_capacity) == (extent.row_capacity, extent.column_capacity):
            return
        for layer in self._buffers:
            if layer.is_initialized:
                layer.resize(row_capacity, column_capacity)
        layout = self._layout_of(self._layout.starts, extent.columns, column_capacity)
        self._layout = layout
        extent.row_capacity, extent.column_capacity = row_capacity, column_capacity

    def _extend_columns(self) -> None:
        """Provides a free column: drops unused columns at the left if they are many, else grows the buffers."""
        columns = self._extent.columns
        unused = min(self._layout.starts)
        if unused >= self._extent.column_capacity // 4:
            self._shift(-unused)
        else:
            self._reserve(self._extent.rows, columns + 1)

    def _shift(self, distance: int) -> None:
        """Moves all rows in all layers; has no effect if it raises.

        Without the rollback, an out-of-memory error in a middle layer would leave layers that disagree about the
        columns, and every later token would be wrong without an error.
        """
        columns = self._extent.columns + distance
        layout = self._layout_of([start + distance for start in self._layout.starts], columns)
        moved: list[_Layer] = []
        try:
            for layer in self._buffers:
                layer.shift(distance)
                moved.append(layer)
            self._commit(self.rows, layout, columns)
        except BaseException:
            for layer in moved:
                layer.shift_back(distance)
            raise

    def _layout_of(self, starts: Sequence[int], columns: int, capacity: int | None = None) -> _Layout:
        """Computes mask and positions of rows that start at `starts` and end before `columns`."""
        firsts = torch.tensor(list(starts), dtype=torch.long, device=self._device)[:, None]
        layout = _Layout(list(starts), any(starts), positions=columns - firsts)
        if layout.padded:
            layout.mask = torch.arange(capacity or self._extent.column_capacity, device=self._device)[None, :] >= firsts
        return layout

    def _commit(self, rows: list[Row], layout: _Layout, columns: int) -> None:
        """Replaces the state of the batch. Only assignments, which cannot fail, so that the state is never mixed."""
        self.rows, self._layout = rows, layout
        self._extent.rows, self._extent.columns = len(rows), columns


def _token_logprobs(logits: torch.Tensor, targets: torch.Tensor, count: int) -> list[TokenLogprob | None]:
    """Computes the log probabilities of `targets` (`[tokens]`) from `logits` (`[tokens, vocabulary]`)."""
    values = torch.log_softmax(logits.float(), dim=-1)
    return [token_logprobs(line, target, count) for line, target in zip(values, targets.tolist(), strict=True)]
