"""A language model without torch: tokens are characters, answers are a function of the prompt, trouble is
scripted.

Used by the tests of everything above the seam `kaito_presets.inference.language_model`.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kaito_presets.errors import BadRequest
from kaito_presets.inference.language_model import (
    Grammar,
    Message,
    ModelInfo,
    Option,
    OutOfMemory,
    PrefixUsage,
    Row,
    RowOutput,
    TemplateOptions,
    TokenLogprob,
    UnbatchedProgress,
)

END = 0


@dataclass(frozen=True, slots=True)
class FakePlan:
    end_tokens: frozenset[int] = frozenset({END})
    is_unbatched: bool = False
    length: int | None = None
    unbatched_reasons: tuple[str, ...] = ()
    width: int = 1
    sequences: int = 1
    stop_strings: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])


def shout(prompt: str) -> str:
    """The default answer: the prompt in capitals."""
    return prompt.upper()


class FakeModel:
    """Echoes in capitals; `hold()` makes every step wait for `allow(n)`."""

    def __init__(
        self,
        *,
        reply: Callable[[str], str] = shout,
        context: int = 1000,
        adapters: tuple[str, ...] = (),
        room: int = 1000,
        end_tokens: frozenset[int] = frozenset({END}),
        tool_format: str | None = "hermes",
        renders_tools: bool = True,
    ) -> None:
        self._end_tokens = end_tokens
        self.info = ModelInfo(
            name="fake",
            context_tokens=context,
            created=1_700_000_000,
            vocabulary=0x110000,
            adapters=adapters,
            engine="fake",
            tool_format=tool_format,
            renders_tools=renders_tools,
            renders_tool_calls=renders_tools,
        )
        self._reply = reply
        self._room = room
        self._live: list[Row] = []
        self._permits: threading.Semaphore | None = None
        self.batch_sizes: list[int] = []
        self.begun: list[str] = []
        self.calls: list[str] = []
        """`slice` and `step`, in the order of the calls."""
        self.resets = 0
        self.seen: list[Row] = []
        self.fail_next_step = False
        self.fail_next_leave = False
        self.fail_reset = False
        self.fail_rows_of: str | None = None
        self.added_tokens: list[int] = []
        """Tokens that precede every text, such as one for its beginning."""
        self.options_of_every_request: dict[str, Option] = {}
        self.alone_runs: list[FakeAlone] = []
        self.unbatched_rows: list[Row] = []
        self.conversations: list[tuple[list[Message], TemplateOptions]] = []

    # Script.

    def hold(self) -> None:
        self._permits = threading.Semaphore(0)

    def allow(self, steps: int) -> None:
        assert self._permits is not None
        self._permits.release(steps)

    def release(self) -> None:
        permits, self._permits = self._permits, None
        if permits:
            permits.release(10_000)

    # Text.

    def plan(self, options: Mapping[str, Option], defaults: Mapping[str, Option]) -> FakePlan:
        if "nonsense" in options:
            raise BadRequest("generate_kwargs.nonsense: not an option", param="nonsense")
        merged = {**defaults, **options, **self.options_of_every_request}
        unbatched = merged.get("num_beams", 1) != 1
        ends = self._end_tokens
        return FakePlan(
            ends, is_unbatched=unbatched, unbatched_reasons=("num_beams",) if unbatched else (), options=merged
        )

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return [*self.added_tokens * special, *(ord(character) for character in text)]

    def encode_chat(self, messages: Sequence[Message], template: TemplateOptions | None = None) -> list[int]:
        self.conversations.append((list(messages), template or TemplateOptions()))
        if any(message.role not in ("system", "user", "assistant") for message in messages):
            raise BadRequest("roles must be system, user or assistant", param="messages")
        return self.encode(messages[-1].content)

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        text = "".join(chr(token) if token != END else "<end>" * special for token in tokens)
        return text.replace(" ,", ",") if clean_up_spaces else text

    def vocabulary_entry(self, token: int) -> str:
        return f"<{token}>"

    def compile_grammar(self, grammar: Grammar) -> object:
        if "unsupported" in grammar.source:
            raise BadRequest(f"{grammar.field} is not supported: scripted", param=grammar.field)
        return grammar

    # Stepping.

    def can_admit(self, live: Sequence[Row], candidate: Row) -> bool:
        return len(live) < self._room

    @property
    def prefix_usage(self) -> PrefixUsage:
        return PrefixUsage()

    def prefill(self, rows: Sequence[Row], limit: int | None = None) -> list[RowOutput]:
        remaining = limit
        self.calls.append("slice")
        complete: list[Row] = []
        for row in rows:
            if not row.prompt_tokens_read:
                self.begun.append(self.decode(row.prompt))
                self.seen.append(row)
            self._maybe_fail(row)
            if row.prompt_logprobs is not None:
                top = [((token + 1, -0.125),) if row.prompt_logprobs else () for token in row.prompt]
                scored = [TokenLogprob(row.prompt[at], -0.25, top[at], 2) for at in range(1, len(row.prompt))]
                row.prompt_token_logprobs = [None, *scored]
            rest = len(row.prompt) - row.prompt_tokens_read
            taken = rest if remaining is None else min(rest, remaining)
            row.prompt_tokens_read += taken
            remaining = None if remaining is None else remaining - taken
            if row.prompt_tokens_read == len(row.prompt):
                complete.append(row)
        self._live += complete
        return [self._next(row) for row in complete]

    def step(self) -> list[RowOutput]:
        self.wait_for_permit()
        self.calls.append("step")
        if self.fail_next_step:
            self.fail_next_step = False
            raise RuntimeError("scripted failure")
        self.batch_sizes.append(len(self._live))
        return [self._next(row) for row in self._live]

    def remove(self, rows: Sequence[Row]) -> None:
        if self.fail_next_leave:
            self.fail_next_leave = False
            raise RuntimeError("scripted failure")
        for row in rows:
            if row in self._live:
                self._live.remove(row)

    def reset(self) -> None:
        self.resets += 1
        if self.fail_reset:
            raise RuntimeError("the device is lost")
        self._live.clear()

    def check_unbatched(self, row: Row) -> None:
        if row.max_new_tokens > 900:
            raise BadRequest("too many tokens side by side", param="num_beams")

    def start_unbatched(self, row: Row) -> "FakeAlone":
        self.unbatched_rows.append(row)
        self._maybe_fail(row)
        answer = self.encode(self._answer(row), special=False)[: row.max_new_tokens]
        run = FakeAlone(self, answer)
        self.alone_runs.append(run)
        return run

    def wait_for_permit(self) -> None:
        permits = self._permits
        if permits is not None:
            permits.acquire()

    def _answer(self, row: Row) -> str:
        text = self._reply(self.decode(row.prompt))
        return f"[{row.adapter}]{text}" if row.adapter is not None else text

    def _next(self, row: Row) -> RowOutput:
        if self.fail_rows_of is not None and self.decode(row.prompt) == self.fail_rows_of:
            return RowOutput(row, END, error=BadRequest("scripted refusal"))
        answer = self.encode(self._answer(row), special=False)
        position = len(row.output_tokens)
        token = answer[position] if position < len(answer) else END
        top = tuple((token + offset, -0.5 - offset) for offset in range(row.logprobs or 0))
        return RowOutput(row, token, None if row.logprobs is None else TokenLogprob(token, -0.5, top))

    def _maybe_fail(self, row: Row) -> None:
        text = self.decode(row.prompt)
        if "explode" in text:
            raise RuntimeError("scripted failure")
        if "out of memory" in text:
            raise OutOfMemory("scripted")


class FakeAlone:
    """A row outside the batch: one turn per token, two sequences at the end."""

    def __init__(self, model: FakeModel, answer: list[int]) -> None:
        self._model = model
        self._answer = answer
        self.turns = 0
        self.cancelled = False

    def advance(self) -> UnbatchedProgress:
        self._model.wait_for_permit()
        self.turns += 1
        if self.turns < len(self._answer):
            return UnbatchedProgress()
        return UnbatchedProgress((), [self._answer, [*self._answer[:1], END]])

    def cancel(self) -> None:
        self.cancelled = True
