"""Interface between the server and the machine-learning libraries, in plain Python types.

`backend.model.TransformersModel` implements it, and the fake model of the tests. The scheduler's thread calls the
methods that compute; the service calls the text methods from any thread. Nothing here imports torch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kaito_presets.errors import RequestError
from kaito_presets.serving.adapters import Adapter

Option = None | bool | int | float | str | Sequence["Option"] | Mapping[str, "Option"]
"""Value of a generation option: JSON."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields for the chat template: `name`, `tool_calls`, `tool_call_id`, `reasoning_content`, `reasoning`."""


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """Options of the chat template's rendering, named as in vLLM's requests."""

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """`chat_template_kwargs`."""
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Grammar:
    """A language to which a completion is restricted."""

    kind: Literal["json_schema", "regex", "choice", "lark"]
    source: str
    """The JSON schema, the regular expression, the texts (a JSON list) or the Lark grammar."""
    field: str
    """Field of the request that contains it, for error messages."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Properties of the loaded model."""

    name: str
    context_tokens: int
    """Most tokens of prompt and completion together, limited by model, options and memory."""
    created: int
    """Unix time of the load in seconds; `created` in `/v1/models`."""
    vocabulary: int = 0
    """Token ids are less than this number; 0 if it is unknown."""
    adapters: tuple[str, ...] = ()
    adapter_versions: Mapping[str, str] = field(default_factory=dict[str, str])
    """Present version of each adapter, for `Row.adapter`; an adapter without one has its name as version."""
    combined_version: str | None = None
    """Present version of all adapters combined; None if it never changes."""
    engine: str = ""
    engine_version: str = ""
    source: str = ""
    device: str = "cpu"
    dtype: str = ""
    has_chat_template: bool = False
    """Whether conversations can be encoded."""
    tool_format: str | None = None
    """Format in which the model writes calls of tools, one of `tool_calls.FORMATS`; None if it is not known."""
    renders_tools: bool = False
    """Whether the chat template renders tools."""
    renders_tool_calls: bool = False
    """Whether the chat template renders the calls of earlier messages."""
    weights_bytes: int = 0
    """Memory of the weights; 0 if it is unknown."""
    cache_tokens: int = 0
    """Tokens of all rows together whose keys and values fit into memory; 0 if it is unknown."""
    unbatched_reasons: tuple[str, ...] = ()
    """Reasons for which every request runs outside the batch: options of the model's generation config, or its
    architecture. Empty if requests are batched."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with the natural logarithm of its probability, and the most probable tokens at its position."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    rank: int = 1
    """Position of the token among all tokens, by probability."""


class SamplingPlan(Protocol):
    """Resolved generation options of a row. The model creates it; the server uses these properties only."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end the sequence."""
        ...

    @property
    def is_unbatched(self) -> bool:
        """Whether the row must run outside the batch, because of options such as beam search."""
        ...

    @property
    def unbatched_reasons(self) -> tuple[str, ...]:
        """Names of the options, or of the property of the model, for which `is_unbatched` is true."""
        ...

    @property
    def width(self) -> int:
        """Sequences that the row computes at the same time, for example beams."""
        ...

    @property
    def sequences(self) -> int:
        """Rows of one request (`num_return_sequences`) if they are batched, else 1."""
        ...

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Stop strings of the model's generation config."""
        ...

    @property
    def length(self) -> int | None:
        """Most new tokens (`max_new_tokens`) by the options or the model's generation config; None if not set."""
        ...


@dataclass(slots=True, eq=False)
class Row:
    """One sequence, the unit of scheduling. Rows are compared by identity, because two requests may be equal."""

    prompt: Sequence[int]
    plan: SamplingPlan
    max_new_tokens: int
    adapter: str | None = None
    """Version of the adapter, "" for the model without adapters, None for all adapters combined at their strengths."""
    seed: int | None = None
    logprobs: int | None = None
    """Number of most probable tokens to report per position; None for no log probabilities."""
    prompt_logprobs: int | None = None
    """The same for the tokens of the prompt."""
    grammar: object | None = None
    """Result of `LanguageModel.compile_grammar` to which the tokens of the row are restricted."""
    prompt_token_logprobs: "Sequence[TokenLogprob | None]" = ()
    """Result of `prompt_logprobs`, set by the prefill; None for the first token, which has no probability."""
    prompt_tokens_read: int = 0
    """Tokens of the prompt that have been computed or reused, set by the prefill."""
    cached_tokens: int = 0
    """Tokens of the prompt whose keys and values were reused, set by the prefill."""
    output_tokens: list[int] = field(default_factory=list[int])
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class PrefixUsage:
    """Use of stored prompt prefixes since the start; all 0 if the model stores none."""

    hits: int = 0
    """Prompts that began with a stored prefix."""
    reused_tokens: int = 0
    """Tokens of prompts that were not computed because of it."""
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RowOutput:
    """The next token of a row, or the error with which the row ends."""

    row: Row
    token: int
    logprob: TokenLogprob | None = None
    error: RequestError | None = None
    """Set if no token could be sampled; the row must be removed."""


@dataclass(frozen=True, slots=True)
class UnbatchedProgress:
    """Result of one call of `UnbatchedGeneration.advance`."""

    tokens: tuple[int, ...] = ()
    """New tokens, if the row has a single sequence."""
    sequences: Sequence[Sequence[int]] | None = None
    """All new tokens of each returned sequence, once the row has ended."""


class UnbatchedGeneration(Protocol):
    """A row that is running outside the batch."""

    def advance(self) -> UnbatchedProgress:
        """Computes one more token; exceptions of the model propagate."""
        ...

    def cancel(self) -> None:
        """Ends the row; may be called in any state."""
        ...


class OutOfMemory(Exception):
    """The memory of the device is exhausted. The rows of the call are lost; after `reset` the model is usable."""


class LanguageModel(Protocol):
    """A loaded model. Only one thread may call the methods that compute: all but `info`, `plan` and the text
    methods."""

    @property
    def info(self) -> ModelInfo:
        """Properties of the model."""
        ...

    def plan(self, options: Mapping[str, Option], defaults: Mapping[str, Option]) -> SamplingPlan:
        """Resolves generation options; precedence: `defaults` < generation config of the model < `options`.

        Raises:
            BadRequest: an option is unknown or has a wrong value.
        """
        ...

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokenizes a text; `special` adds the special tokens of the tokenizer, such as a start token."""
        ...

    def encode_chat(self, messages: Sequence[Message], template: "TemplateOptions | None" = None) -> list[int]:
        """Renders a conversation with the chat template and tokenizes it.

        Raises:
            BadRequest: the template rejects the messages, or the model has no template.
        """
        ...

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        """Converts token ids to text; `special` includes special tokens."""
        ...

    def vocabulary_entry(self, token: int) -> str:
        """Returns the entry of a token in the vocabulary, which encodes spaces and parts of characters."""
        ...

    def compile_grammar(self, grammar: Grammar) -> object:
        """Compiles a grammar for `Row.grammar`; takes milliseconds to a second, and may be called on any thread.

        Raises:
            BadRequest: the grammar is invalid, not supported or too complex.
        """
        ...

    def can_admit(self, live: Sequence[Row], candidate: Row) -> bool:
        """Returns whether the memory suffices for `candidate` and the running rows, in and outside the batch."""
        ...

    @property
    def prefix_usage(self) -> PrefixUsage:
        """Use of stored prompt prefixes."""
        ...

    def prefill(self, rows: Sequence[Row], limit: int | None = None) -> list[RowOutput]:
        """Computes the prompts of `rows`, at most `limit` tokens of them; None for all.

        Each row whose prompt is complete is added to the batch, and its first token is returned. The others continue
        with the next call. The first rows take precedence. If it raises, the batch and the computed part of each prompt
        are unchanged.
        """
        ...

    def step(self) -> list[RowOutput]:
        """Computes the next token of every row in the batch."""
        ...

    def remove(self, rows: Sequence[Row]) -> None:
        """Removes rows from the batch, or drops the computed part of their prompts."""
        ...

    def reset(self) -> None:
        """Removes all rows after a failure and frees their memory."""
        ...

    def check_unbatched(self, row: Row) -> None:
        """Rejects a row that would run outside the batch and need more memory than one request may use.

        Raises:
            BadRequest: the message contains the needed and the available number of tokens.
        """
        ...

    def start_unbatched(self, row: Row) -> UnbatchedGeneration:
        """Starts a row outside the batch. It computes only inside `advance`, never at the same time as a step."""
        ...


class AdaptableModel(LanguageModel, Protocol):
    """A model whose adapters change while it serves requests. These methods belong to those that compute."""

    def load_adapter(self, adapter: Adapter) -> None:
        """Loads an adapter, or a new version of one with the same name; new requests select it.

        Raises:
            AdapterError: the adapter cannot be used; nothing has changed.
        """
        ...

    def retire_adapter(self, name: str) -> None:
        """Stops offering an adapter to new requests.

        Raises:
            AdapterError: the others cannot be used without it; nothing has changed.
        """
        ...

    def release_adapters(self, used: Collection[str | None]) -> frozenset[str]:
        """Deletes versions that are neither offered nor in `used`; returns the names of those that are still used.

        The name of a combination is empty.
        """
        ...
