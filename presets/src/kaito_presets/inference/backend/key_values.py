"""Keys and values of one layer, in buffers that are allocated in advance.

Used by `batch` (the running rows) and `prompts` (the rows whose prompts are being computed). Guarantees that a failed
move leaves the buffers unchanged.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from dataclasses import dataclass
from typing import Any, final

import torch
from transformers.cache_utils import CacheLayerMixin


@final
@dataclass(slots=True)
class Extent:
    """The used and the allocated part of the cache; all layers share one object, so that they cannot differ."""

    rows: int = 0
    columns: int = 0
    row_capacity: int = 0
    column_capacity: int = 0


@final
class Layer(CacheLayerMixin):
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
