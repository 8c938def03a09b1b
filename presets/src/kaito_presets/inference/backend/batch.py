"""A batch whose rows come and go between two steps, over one pre-allocated key/value cache.

Used by `model`, in the scheduler's thread. Rows are aligned on the right: every row's newest token is in the
same column, shorter rows start later and are masked on the left. So a step is one forward pass with one
column written for all rows; a new row is read by itself and copied in so that it ends where the others are;
a finished row is overwritten by the last one. Keys are stored after rotary embedding, therefore moving a row
sideways does not change what it attends to.

Guarantees the same tokens as running each row by itself (up to floating-point rounding of batched matrix
products).
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from kaito_presets.inference.language_model import Row

CHUNK_TOKENS: Final = 2048
"""Prompts are read in pieces of this many columns, which bounds the memory of activations."""
FIRST_COLUMNS: Final = 256
"""Columns allocated for a new batch; doubled when they are full."""


@final
@dataclass(slots=True)
class Extent:
    """The used part of the cache, shared by all its layers."""

    rows: int = 0
    columns: int = 0
    row_capacity: int = 0
    column_capacity: int = 0


@final
class _Layer(CacheLayerMixin):
    """Keys and values of one layer: `[row capacity, heads, column capacity, head dim]`, of which `extent` is
    in use."""

    is_sliding = False
    key_buffer: torch.Tensor
    value_buffer: torch.Tensor

    def __init__(self, extent: Extent) -> None:
        super().__init__()
        self.extent = extent

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate; zeros, because masked positions are multiplied by zero and uninitialised memory may hold
        NaN."""
        extent = self.extent
        shape = (extent.row_capacity, key_states.shape[1], extent.column_capacity)
        self.key_buffer = key_states.new_zeros((*shape, key_states.shape[3]))
        self.value_buffer = value_states.new_zeros((*shape, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns in place and return everything up to them, without copying."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, start = self.extent.rows, self.extent.columns
        end = start + key_states.shape[-2]
        self.key_buffer[:rows, :, start:end] = key_states
        self.value_buffer[:rows, :, start:end] = value_states
        return self.key_buffer[:rows, :, :end], self.value_buffer[:rows, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys."""
        return self.extent.columns + query_length, 0

    def get_seq_length(self) -> int:
        """Columns already written."""
        return self.extent.columns

    def get_max_length(self) -> int:
        """No bound: the buffer grows."""
        return -1

    def resize(self, rows: int, columns: int) -> None:
        """Move to a larger buffer."""
        for name in ("key_buffer", "value_buffer"):
            old: torch.Tensor = getattr(self, name)
            new = old.new_zeros((rows, old.shape[1], columns, old.shape[3]))
            used_rows, used_columns = self.extent.rows, self.extent.columns
            new[:used_rows, :, :used_columns] = old[:used_rows, :, :used_columns]
            setattr(self, name, new)

    def shift(self, distance: int) -> None:
        """Move all columns to the right (positive) or left (negative)."""
        rows, columns = self.extent.rows, self.extent.columns
        for buffer in (self.key_buffer, self.value_buffer):
            if distance < 0:
                buffer[:rows, :, : columns + distance] = buffer[:rows, :, -distance:columns].clone()
            else:
                buffer[:rows, :, distance : columns + distance] = buffer[:rows, :, :columns].clone()
                buffer[:rows, :, :distance] = 0


@final
class Batch:
    """Rows that advance together. The caller makes the right adapter active before each call."""

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
        self._starts: list[int] = []
        self._padded = False
        self._mask = torch.zeros((0, 0), dtype=torch.bool, device=self._device)
        self._positions = torch.zeros((0, 1), dtype=torch.long, device=self._device)

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> torch.Tensor:
        """Read the prompts of `rows`; returns the logits of their next token, `[len(rows), vocabulary]`."""
        width = max(len(row.prompt) for row in rows)
        tokens = torch.tensor([[self._pad] * (width - len(row.prompt)) + list(row.prompt) for row in rows])
        tokens = tokens.to(self._device)
        starts = [width - len(row.prompt) for row in rows]
        if not self.rows:
            self._reserve(len(rows), width)
            self._extent.rows, self._extent.columns = len(rows), 0
            try:
                logits = self._read(tokens, starts, self._cache, self._extent)
            except Exception:
                self._extent.rows = self._extent.columns = 0
                raise
            self.rows, self._starts = list(rows), starts
        else:
            own = DynamicCache()
            logits = self._read(tokens, starts, own, None)
            self._adopt(rows, starts, width, own)
        self._describe_rows()
        return logits

    @torch.inference_mode()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed the newest token of every row (`[rows, 1]`); returns the logits of the next, `[rows,
        vocabulary]`."""
        extent = self._extent
        if extent.columns >= extent.column_capacity:
            self._make_room()
        rows, columns = extent.rows, extent.columns
        mask: torch.Tensor | None = None
        if self._padded:
            mask = self._mask[:rows, : columns + 1]
            if not self._needs_window_mask:
                mask = mask[:, None, None, :]
        output = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=self._positions[:rows],
            past_key_values=self._cache,
            use_cache=True,
        )
        extent.columns += 1
        self._positions[:rows] += 1
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    @torch.inference_mode()
    def leave(self, gone: Sequence[Row]) -> None:
        """Take rows out; the last row takes the place of each."""
        leaving = {id(row) for row in gone}
        extent = self._extent
        for index in range(len(self.rows) - 1, -1, -1):
            if id(self.rows[index]) not in leaving:
                continue
            last = len(self.rows) - 1
            if index != last:
                columns = extent.columns
                for layer in self._buffers:
                    layer.key_buffer[index, :, :columns] = layer.key_buffer[last, :, :columns]
                    layer.value_buffer[index, :, :columns] = layer.value_buffer[last, :, :columns]
                self.rows[index], self._starts[index] = self.rows[last], self._starts[last]
            del self.rows[last], self._starts[last]
        extent.rows = len(self.rows)
        if self.rows:
            # Rows that began later need not drag the columns of those that are gone through every step.
            unused = min(self._starts)
            if unused > extent.columns // 2:
                self._shift(-unused)
            self._describe_rows()
        else:
            extent.columns = 0

    # Reading prompts.

    def _read(self, tokens: torch.Tensor, starts: Sequence[int], cache: Cache, extent: Extent | None) -> torch.Tensor:
        width = tokens.shape[1]
        columns = torch.arange(width, device=self._device)
        offsets = torch.tensor(starts, device=self._device)[:, None]
        positions = (columns[None, :] - offsets).clamp_(min=0)
        mask = (columns[None, :] >= offsets) if any(starts) else None
        logits = torch.empty(0)
        for begin in range(0, width, CHUNK_TOKENS):
            end = min(width, begin + CHUNK_TOKENS)
            output = self._model(
                input_ids=tokens[:, begin:end],
                attention_mask=None if mask is None else mask[:, :end],
                position_ids=positions[:, begin:end],
                past_key_values=cache,
                use_cache=True,
                **self._tail,
            )
            if extent is not None:
                extent.columns = end
            logits = output.logits[:, -1]
        return logits

    def _adopt(self, rows: Sequence[Row], starts: Sequence[int], width: int, own: DynamicCache) -> None:
        """Copy rows that were read by themselves in, so that they end where the batch is."""
        extent = self._extent
        surplus = width - extent.columns
        self._reserve(len(self.rows) + len(rows), max(extent.columns, width))
        if surplus > 0:
            self._shift(surplus)
        first, last = len(self.rows), len(self.rows) + len(rows)
        begin = extent.columns - width
        for layer, source in zip(self._buffers, own.layers, strict=True):
            read: Any = source
            layer.key_buffer[first:last, :, begin : extent.columns] = read.keys
            layer.value_buffer[first:last, :, begin : extent.columns] = read.values
            # What an earlier row left here is masked, and finite, so it may stay.
        self.rows.extend(rows)
        self._starts.extend(begin + start for start in starts)
        extent.rows = last

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
        extent.row_capacity, extent.column_capacity = row_capacity, column_capacity

    def _make_room(self) -> None:
        """The buffer is full: drop columns nobody uses if they are many, else grow."""
        unused = min(self._starts)
        if unused >= self._extent.column_capacity // 4:
            self._shift(-unused)
        else:
            self._reserve(self._extent.rows, self._extent.columns + 1)
        self._describe_rows()

    def _shift(self, distance: int) -> None:
        for layer in self._buffers:
            layer.shift(distance)
        self._extent.columns += distance
        self._starts = [start + distance for start in self._starts]

    def _describe_rows(self) -> None:
        """Mask and positions for the steps to come, until rows join, leave or move."""
        extent = self._extent
        starts = torch.tensor(self._starts, device=self._device)[:, None]
        self._padded = any(self._starts)
        self._positions = extent.columns - starts
        if self._padded:
            columns = torch.arange(extent.column_capacity, device=self._device)
            self._mask = columns[None, :] >= starts
