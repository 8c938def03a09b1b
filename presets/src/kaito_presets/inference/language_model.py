"""The seam between serving and the machine-learning libraries: what a model must be able to do, in plain
Python types.

Implemented by `backend.model.TransformersModel` and by the fake of the tests; used by the scheduler (one
thread calls the stepping methods) and by the service (text methods, from any thread). Nothing here imports
torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kaito_presets.errors import RequestError

Option = None | bool | int | float | str | Sequence["Option"] | Mapping[str, "Option"]
"""A value of `generate_kwargs`: JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields that chat templates may read: `name`, `tool_calls`, `tool_call_id`, `reasoning_content`."""


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """How the chat template is rendered (vLLM's request fields of the same names)."""

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """`chat_template_kwargs`."""


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
    alone_because: tuple[str, ...] = ()
    """Why requests without options of their own run outside the batch: options of the model's generation config, or
    the model's architecture. Empty: they share the batch."""


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
        """The options cannot share a batch (beam search and the like): the row runs beside it."""
        ...

    @property
    def alone_because(self) -> tuple[str, ...]:
        """Names of the options for which `alone` is true, or of the model's property."""
        ...

    @property
    def width(self) -> int:
        """Sequences that the row computes side by side (beams)."""
        ...

    @property
    def sequences(self) -> int:
        """Rows to make of one request (`num_return_sequences`), if they share the batch."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Stop strings of the model's generation config."""
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
    prompt_logprobs: int | None = None
    """The same for the tokens of the prompt."""
    prompt_scores: "Sequence[TokenLogprob | None]" = ()
    """What `prompt_logprobs` asks for, set when the prompt has been read; the first token has no probability."""
    produced: list[int] = field(default_factory=list[int])
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Emission:
    """One new token of one row."""

    row: Row
    token: int
    logprob: TokenLogprob | None = None
    error: RequestError | None = None
    """No token could be chosen for this row, which has to leave."""


@dataclass(frozen=True, slots=True)
class AloneProgress:
    """What one turn of a row outside the batch brought."""

    tokens: tuple[int, ...] = ()
    """New tokens, if the row is a single sequence."""
    sequences: Sequence[Sequence[int]] | None = None
    """The new tokens of every returned sequence, once it has ended."""


class AloneGeneration(Protocol):
    """A row that runs outside the batch."""

    def advance(self) -> AloneProgress:
        """One more token. Raises what the model raises."""
        ...

    def cancel(self) -> None:
        """End it; safe at any time."""
        ...


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

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a plain prompt, with the tokenizer's special tokens around it unless `special` is
        False."""
        ...

    def encode_chat(self, messages: Sequence[Message], template: "TemplateOptions | None" = None) -> list[int]:
        """Token ids of a conversation through the chat template, ready for the assistant's turn unless `template`
        switches that off.

        Raises:
            BadRequest: the template refuses the roles, or there is none.
        """
        ...

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        """Text of token ids; special tokens are left out unless asked for."""
        ...

    def fits(self, live: Sequence[Row], candidate: Row) -> bool:
        """Whether there is memory for `candidate` beside `live`, which may hold a row that runs alone."""
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

    def check_alone(self, row: Row) -> None:
        """Refuse a row outside the batch that costs more than one request may take.

        Raises:
            BadRequest: names the numbers.
        """
        ...

    def start_alone(self, row: Row) -> AloneGeneration:
        """Start a row with `plan.alone`. It computes only within `advance`, between two steps of the
        batch."""
        ...
