"""Runs `model.generate` step by step, for rows with options that only `generate` implements, such as beam search.

Used by `model`. `generate` runs on a separate thread that pauses after every token and every slice of the prompt, so
that the scheduler can alternate between this row and the batch. Guarantees:

* The thread computes only while `advance` waits for it: two threads never use the model at the same time.
* A seeded run neither changes nor sees the global random state of the batch.
* A run ends early after `MAX_SECONDS` of its own computing time.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final, final

import torch
from transformers import StoppingCriteria

from kaito_presets.inference.language_model import UnbatchedProgress

SLICE_TOKENS: Final = 256
"""Tokens of all sequences that one forward pass computes of a prompt on a CPU."""
GPU_SLICE_TOKENS: Final = 2048
MAX_SECONDS: Final = 600.0
"""Maximum computing time of one run, without its pauses."""

Generate = Callable[["Pauses"], list[list[int]]]


class _Stopped(Exception):
    """The run ends before its prompt is complete."""


@final
class Pauses:
    """Callbacks of a running `generate`."""

    def __init__(self, after_token: Callable[[torch.Tensor], bool], before_pass: Callable[[int], None]) -> None:
        self.after_token: StoppingCriteria = _Pause(after_token)
        self._before_pass = before_pass

    @contextmanager
    def between_slices(self, model: Any) -> Generator[None]:
        """Pauses before every forward pass of `model` on this thread that continues a prompt."""
        thread = threading.current_thread()

        def before_pass(_: Any, __: Any, arguments: dict[str, Any]) -> None:
            tokens = arguments.get("input_ids")
            if tokens is not None and threading.current_thread() is thread:
                self._before_pass(int(tokens.shape[1]))

        hook = model.register_forward_pre_hook(before_pass, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


@final
class UnbatchedRun:
    """A running call of `generate`; implements `language_model.UnbatchedGeneration`.

    Two semaphores pass control back and forth like a coroutine: `advance` releases `_turn` and waits for `_paused`, the
    thread does the opposite. `generate` has no resumable interface, and its stopping criteria are the only callback
    that it calls once per token.
    """

    def __init__(
        self,
        generate: Generate,
        *,
        prepare: Callable[[], None],
        seed: int | None,
        prompt_length: int,
        single: bool,
    ) -> None:
        self._generate = generate
        self._prepare = prepare
        """Activates the adapter and rotary mode of this row, which a step of the batch may have replaced."""
        self._prompt_length = prompt_length
        self._single = single
        self._turn = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._random = _random_state_of(seed)
        self._seconds = 0.0
        self._cancelled = False
        self._passes = 0
        self._new: list[int] = []
        self._result: list[list[int]] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="generate-unbatched", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether the run has neither a result nor an error."""
        return self._result is None and self._error is None

    def advance(self) -> UnbatchedProgress:
        """Computes one more token, or a slice of the prompt.

        Raises:
            BadRequest: `generate` rejects the options.
        """
        self._prepare()
        before = _random_state() if self._random is not None else None
        if self._random is not None:
            _use_random_state(self._random)
        started = time.monotonic()
        self._turn.release()
        self._paused.acquire()
        self._seconds += time.monotonic() - started
        if before is not None:
            self._random = _random_state()
            _use_random_state(before)
        if self._error is not None:
            raise self._error
        new, self._new = self._new, []
        return UnbatchedProgress(tuple(new), self._result)

    def finish_early(self) -> None:
        """Ends the generation at the next `advance`, which returns the sequences so far."""
        self._cancelled = True

    def cancel(self) -> None:
        """Ends the run and waits for its thread.

        `generate` cannot be interrupted inside a token, so the thread computes until its next pause.
        """
        self._cancelled = True
        while self.is_open:
            self._turn.release()
            self._paused.acquire()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._result = self._generate(Pauses(self._pause, self._pause_in_prompt))
        except _Stopped:
            self._result = [[]]
        except BaseException as error:  # noqa: BLE001 - raised by `advance` on the scheduler's thread
            self._error = error
        self._paused.release()

    def _pause(self, tokens: torch.Tensor) -> bool:
        """Passes control to `advance`; `generate` calls it after every token and ends if it returns True."""
        if self._single:
            self._new += tokens[0, self._prompt_length :].tolist()
            self._prompt_length = tokens.shape[1]
        return self._yield_turn()

    def _pause_in_prompt(self, columns: int) -> None:
        """Passes control to `advance` before a slice of the prompt, except the first one."""
        self._passes += 1
        if columns > 1 and self._passes > 1 and self._yield_turn():
            raise _Stopped

    def _yield_turn(self) -> bool:
        """Lets `advance` return and waits for the next one; returns whether the run has to end."""
        self._paused.release()
        self._turn.acquire()
        return self._cancelled or self._seconds > MAX_SECONDS


@final
class _Pause(StoppingCriteria):
    def __init__(self, pause: Callable[[torch.Tensor], bool]) -> None:
        self._pause = pause

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        return torch.full((input_ids.shape[0],), self._pause(input_ids), device=input_ids.device, dtype=torch.bool)


_RandomState = tuple[torch.Tensor, list[torch.Tensor]]


def _random_state() -> _RandomState:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _use_random_state(state: _RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def _random_state_of(seed: int | None) -> _RandomState | None:
    """Returns the state that `torch.manual_seed(seed)` sets; `generate` samples with the global generator."""
    if seed is None:
        return None
    before = _random_state()
    torch.manual_seed(seed)
    state = _random_state()
    _use_random_state(before)
    return state
