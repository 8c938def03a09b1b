"""Runs `model.generate` step by step, for rows whose options only `generate` can carry out (beam search and the like).

Used by `model`. `generate` runs on a thread of its own that pauses after every token, so that the scheduler can
alternate between this row and the batch. Guarantees that the thread computes only while `advance` waits for it (the
model is never used by two threads at once), that the global random numbers of the two sides do not mix, and that a run
ends, cut short, after `MOST_SECONDS` of its own computing time.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import threading
import time
from collections.abc import Callable
from typing import Any, Final, final

import torch
from transformers import StoppingCriteria

from kaito_presets.inference.language_model import AloneProgress

MOST_SECONDS: Final = 600.0
"""Computing time of one run."""

Generate = Callable[[StoppingCriteria], list[list[int]]]


@final
class AloneRun:
    """One `generate` call under way; implements `language_model.AloneGeneration`."""

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
        """Puts the model into this row's state (adapter, rotary regime), which a step of the batch changes."""
        self._prompt_length = prompt_length
        self._single = single
        self._turn = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._random = _random_state_of(seed)
        self._seconds = 0.0
        self._cancelled = False
        self._new: list[int] = []
        self._result: list[list[int]] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="generate-alone", daemon=True)
        self._thread.start()

    def advance(self) -> AloneProgress:
        """Compute one more token.

        Raises:
            BadRequest: `generate` refuses the options.
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
        return AloneProgress(tuple(new), self._result)

    def finish_early(self) -> None:
        """Let the next `advance` return what there is."""
        self._cancelled = True

    def cancel(self) -> None:
        """End the run at its next token, and wait for that."""
        self._cancelled = True
        while self._result is None and self._error is None:
            self._turn.release()
            self._paused.acquire()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._result = self._generate(_Pause(self._pause))
        except BaseException as error:  # noqa: BLE001 - raised by `advance`, in the scheduler's thread
            self._error = error
        self._paused.release()

    def _pause(self, tokens: torch.Tensor) -> bool:
        """Called by `generate` after every token; True ends it."""
        if self._single:
            self._new += tokens[0, self._prompt_length :].tolist()
            self._prompt_length = tokens.shape[1]
        self._paused.release()
        self._turn.acquire()
        return self._cancelled or self._seconds > MOST_SECONDS


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
    """The state that `torch.manual_seed(seed)` gives; `generate` draws from the global generator."""
    if seed is None:
        return None
    before = _random_state()
    torch.manual_seed(seed)
    state = _random_state()
    _use_random_state(before)
    return state
