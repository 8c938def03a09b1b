"""Batch of rows with one preallocated key/value cache; rows are added and removed between two steps.

Used by `model` on the scheduler's thread. Rows are aligned on the right: the newest token of every row is in the same
column, and shorter rows start in a later column and are masked on the left.

    column     0  1  2  3  4  5 │ next
    row 0      a  b  c  d  e  f │  g      start 0
    row 1      ·  ·  ·  p  q  r │  s      start 3

* A step is therefore one forward pass that writes one column for all rows. With rows aligned on the left, every row
  would write to a different column, and the mask would differ in every step.
* The prompts of new rows are computed in a cache of their own (`prompts`) and copied in so that they end in the current
  column.
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
from transformers.cache_utils import Cache

from kaito_presets.inference.backend.key_values import Extent, Layer
from kaito_presets.inference.language_model import Row

FIRST_COLUMNS: Final = 256
"""Columns that a new batch allocates; the capacity doubles when they are used up."""


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

    def __init__(self, model: Any, *, layers: int, needs_window_mask: bool) -> None:
        self._model = model
        self._needs_window_mask = needs_window_mask
        self._device: torch.device = model.device
        self._extent = Extent()
        self.layers = [Layer(self._extent) for _ in range(layers)]
        self._cache = Cache(layers=list(self.layers))
        self.rows: list[Row] = []
        self._layout = _Layout()

    @torch.inference_mode()
    def add(self, rows: Sequence[Row], starts: Sequence[int], width: int, layers: Sequence[Layer]) -> None:
        """Adds rows whose prompts are in the first `width` columns of `layers`, each from its column in `starts` on.

        They are copied so that they end in the current column. If they are longer than the batch, all other rows move
        to the right first. The batch is unchanged if it raises.
        """
        extent = self._extent
        columns = max(extent.columns, width) if self.rows else width
        self._reserve(len(self.rows) + len(rows), columns)
        if not self.rows:
            # Nothing has to be kept, so the columns of former rows are used again.
            self._commit([], _Layout(), columns)
        elif width > extent.columns:
            self._shift(width - extent.columns)
        first, last = len(self.rows), len(self.rows) + len(rows)
        begin = columns - width
        for layer, source in zip(self.layers, layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(source.key_buffer, source.value_buffer)
            # Rows from `first` on are not in use before `_commit`, so a failure in this loop has no effect. Columns
            # before `begin` are masked, but must be finite: a removed row may have left NaN there.
            layer.key_buffer[first:last, :, :begin] = 0
            layer.value_buffer[first:last, :, :begin] = 0
            layer.key_buffer[first:last, :, begin:columns] = source.key_buffer[:, :, :width]
            layer.value_buffer[first:last, :, begin:columns] = source.value_buffer[:, :, :width]
        layout = self._layout_of([*self._layout.starts, *(begin + start for start in starts)], columns)
        self._commit([*self.rows, *rows], layout, columns)

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
                for layer in self.layers:
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

    def start_of(self, row: Row) -> tuple[int, int, int]:
        """Returns the index of a row, its first column, and the number of its columns."""
        index = next(index for index, other in enumerate(self.rows) if other is row)
        start = self._layout.starts[index]
        return index, start, self._extent.columns - start

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
        for layer in self.layers:
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
        moved: list[Layer] = []
        try:
            for layer in self.layers:
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
