"""The seam between serving and the machine-learning libraries: what a model must be able to do, in plain
Python types.

Implemented by `backend.model.TransformersModel` and by the fake of the tests; used by the scheduler (one
thread calls the stepping methods) and by the service (text methods, from any thread). Nothing here imports
torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Option = None | bool | int | float | str | Sequence["Option"] | Mapping[str, "Option"]
"""A value of `generate_kwargs`: JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the loaded model is; fixed from load to exit."""

    name: str
    context_tokens: int
    """Prompt plus output that fit, after the memory cap."""
    created: int
    """Unix seconds of the load; `created` in `/v1/models`."""
    vocabulary: int = 0
    """Token ids are below this; 0 for unknown."""
    adapters: tuple[str, ...] = ()
    engine: str = ""
    engine_version: str = ""
    source: str = ""
    device: str = "cpu"
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the logarithm of its probability, with the most probable alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class SamplingPlan(Protocol):
    """Resolved generation options of one row; made by the model, opaque to the scheduler but for these."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end the sequence."""
        ...

    @property
    def alone(self) -> bool:
        """The options cannot share a batch (beam search and the like): the scheduler runs the row
        exclusively."""
        ...

    @property
    def length(self) -> int | None:
        """New tokens that the options or the model's generation config ask for, if they do."""
        ...


@dataclass(slots=True, eq=False)
class Row:
    """One sequence under way: the unit of the scheduler. `eq=False`: a row is itself, not its content."""

    prompt: Sequence[int]
    plan: SamplingPlan
    max_new_tokens: int
    adapter: str | None = None
    """Name of the adapter, "" for the plain base model, None for the default (all adapters at their
    strengths)."""
    seed: int | None = None
    logprobs: int | None = None
    """Number of alternatives to report, None for no log probabilities at all."""
    produced: list[int] = field(default_factory=list[int])
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Emission:
    """One new token of one row."""

    row: Row
    token: int
    logprob: TokenLogprob | None = None


class OutOfMemory(Exception):
    """The device has no memory for the step; rows of the call are lost, the model is usable again after
    `reset`."""


class LanguageModel(Protocol):
    """A loaded model. Stepping methods belong to the scheduler's thread."""

    @property
    def info(self) -> ModelInfo:
        """What was loaded."""
        ...

    def plan(self, options: Mapping[str, Option], defaults: Mapping[str, Option]) -> SamplingPlan:
        """Resolve generation options: `defaults` < the model's own generation config < `options`.

        Raises:
            BadRequest: unknown option or impossible value.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain prompt."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation through the chat template, ready for the assistant's turn.

        Raises:
            BadRequest: the template refuses the roles, or there is none.
        """
        ...

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        """Text of token ids; special tokens are left out unless asked for."""
        ...

    def fits(self, live: Sequence[Row], candidate: Row) -> bool:
        """Whether the batch `live` has room for `candidate`."""
        ...

    def begin(self, rows: Sequence[Row]) -> list[Emission]:
        """Read the prompts of `rows`, which join the batch; returns the first token of each.

        If it raises, none of `rows` is in the batch and the rows that were there are unharmed.
        """
        ...

    def step(self) -> list[Emission]:
        """One more token for every row of the batch."""
        ...

    def leave(self, rows: Sequence[Row]) -> None:
        """Take rows out of the batch."""
        ...

    def reset(self) -> None:
        """Empty the batch after a failure and free its memory."""
        ...

    def run_alone(self, row: Row, stopped: Callable[[], bool]) -> list[list[int]]:
        """Run a row whose plan says `alone`; returns the new tokens of each returned sequence. Ends early
        once `stopped()`."""
        ...
