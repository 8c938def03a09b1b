"""`TransformersModel`: the language model over transformers, as the scheduler and the service need it.

Made by `main` through `open_model`. One batch per (adapter in effect, rope regime); a step advances each of
them once. Methods that step belong to the scheduler's thread; text methods may be called from any.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import dataclasses
import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast, final

import torch
import transformers
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import get_layer_types_and_kwargs

from kaito_presets.errors import BadRequest, ConfigurationError
from kaito_presets.inference.backend.adapters import LoadedAdapters
from kaito_presets.inference.backend.alone import AloneRun
from kaito_presets.inference.backend.batch import Batch
from kaito_presets.inference.backend.load import check_source, load_model, load_tokenizer
from kaito_presets.inference.backend.memory import cache_budget_bytes, cache_bytes_per_token
from kaito_presets.inference.backend.plan import TransformersPlan, make_plan, own_config
from kaito_presets.inference.backend.sampling import Choice, RequireToken, Sampler
from kaito_presets.inference.language_model import (
    Emission,
    Message,
    ModelInfo,
    Option,
    OutOfMemory,
    Row,
    TemplateOptions,
)
from kaito_presets.inference.options import InferenceOptions
from kaito_presets.serving.adapters import Adapter

log = logging.getLogger(__name__)

BATCHABLE_LAYERS: Final = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Layers whose whole state is keys and values per position; models with others (state spaces, …) run row by
row."""
MODEL_CANNOT_BATCH: Final = "model_architecture"
"""Reported as the reason why every request runs alone."""
LEAST_ALONE_TOKENS: Final = 8192
WARM_UP_TOKENS: Final = 8
_NO_DEFAULTS: Final[Mapping[str, Option]] = {}

BatchKey = tuple[str | None, bool]


def open_model(options: InferenceOptions, adapters: Sequence[Adapter]) -> "TransformersModel":
    """Load model, tokenizer and adapters, and prove that they answer.

    Raises:
        ModelLoadError: names what could not be loaded.
    """
    check_source(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer(options)
    model = load_model(options)
    loaded = None
    if adapters:
        loaded = LoadedAdapters(model, adapters, options.combination_type, options.pretrained_model_name_or_path)
    result = TransformersModel(options, model, tokenizer, loaded)
    result.warm_up(choose_threads=options.threads == 0)
    return result


@final
class TransformersModel:
    """Implements `language_model.LanguageModel`."""

    def __init__(self, options: InferenceOptions, model: Any, tokenizer: Any, adapters: LoadedAdapters | None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._adapters = adapters
        self._sampler = Sampler()
        self._batches: dict[BatchKey, Batch] = {}
        self._place: dict[Row, BatchKey] = {}
        self._newest: dict[BatchKey, torch.Tensor] = {}
        embeddings: int = model.get_input_embeddings().num_embeddings
        head = model.get_output_embeddings()
        self._vocabulary = min(embeddings, head.weight.shape[0]) if hasattr(head, "weight") else embeddings
        self._generation_config = own_config(
            model.generation_config,
            end=tokenizer.eos_token_id,
            pad=tokenizer.pad_token_id,
            vocabulary=self._vocabulary,
        )
        text_config = model.config.get_text_config(decoder=True)
        kinds = set(get_layer_types_and_kwargs(text_config)[0])
        self._batchable = kinds <= BATCHABLE_LAYERS
        self._windowed = kinds != {"full_attention"}
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._rope = _LongRope(text_config)
        self._layers: int = text_config.num_hidden_layers
        self._token_bytes = cache_bytes_per_token(model.config, model.dtype)
        self._budget_tokens = max(64, cache_budget_bytes(model.device) // self._token_bytes)
        self.info = ModelInfo(
            name=options.name,
            context_tokens=_context(options, text_config, self._budget_tokens),
            created=round(time.time()),  # noqa: TID251 - a wall-clock stamp on the wire
            vocabulary=embeddings,
            adapters=adapters.names if adapters else (),
            engine="transformers",
            engine_version=transformers.__version__,
            source=options.pretrained_model_name_or_path,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            alone_because=self.plan({}).alone_because,
        )

    def plan(self, options: Mapping[str, Option], defaults: Mapping[str, Option] = _NO_DEFAULTS) -> TransformersPlan:
        """See `LanguageModel.plan`."""
        plan = make_plan(self._generation_config, options, defaults, self._vocabulary)
        if self._batchable or plan.alone:
            return plan
        if plan.logit_bias or plan.frequency_penalty or plan.presence_penalty:
            raise BadRequest(
                "frequency_penalty, presence_penalty and logit_bias are not supported for this model, "
                "which runs one sequence at a time",
            )
        return dataclasses.replace(
            plan, alone_because=(MODEL_CANNOT_BATCH,), sequences=1, width=max(plan.width, plan.sequences)
        )

    # Text.

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """See `LanguageModel.encode`."""
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def encode_chat(self, messages: Sequence[Message], template: TemplateOptions | None = None) -> list[int]:
        """See `LanguageModel.encode_chat`."""
        if not self._tokenizer.chat_template:
            raise BadRequest("this model has no chat template; give one with --chat_template or send a prompt")
        turns = [{"role": message.role, "content": message.content, **message.extra} for message in messages]
        template = template or TemplateOptions()
        try:
            encoded = self._tokenizer.apply_chat_template(
                turns,
                add_generation_prompt=template.add_generation_prompt,
                continue_final_message=template.continue_final_message,
                return_dict=True,
                **template.variables,
            )
        except Exception as error:  # templates raise what they like
            raise BadRequest(f"the model's chat template refuses these messages: {error}", param="messages") from error
        return list(encoded["input_ids"])

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        """See `LanguageModel.decode`."""
        text = self._tokenizer.decode(
            list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=clean_up_spaces
        )
        return str(text)

    # Stepping.

    def fits(self, live: Sequence[Row], candidate: Row) -> bool:
        """See `LanguageModel.fits`; every row takes as many columns as the longest."""
        batched = [row for row in (*live, candidate) if not row.plan.alone]
        longest = max((len(row.prompt) + row.max_new_tokens for row in batched), default=0)
        alone = sum(alone_tokens(row) for row in (*live, candidate) if row.plan.alone)
        return len(batched) * longest + alone <= self._budget_tokens

    def begin(self, rows: Sequence[Row]) -> list[Emission]:
        """See `LanguageModel.begin`."""
        groups: dict[BatchKey, list[Row]] = {}
        for row in rows:
            groups.setdefault((row.adapter, self._rope.is_long(row)), []).append(row)
        try:
            return [emission for key, members in groups.items() for emission in self._begin_group(key, members)]
        except BaseException:
            self._forget(rows)
            raise

    def _begin_group(self, key: BatchKey, members: list[Row]) -> list[Emission]:
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = self._new_batch()
        logits = self._forward(key, lambda: batch.join(members))
        choice = self._sampler.choose(members, logits)
        before = self._newest.get(key)
        self._newest[key] = choice.tokens if before is None else torch.cat([before, choice.tokens])
        self._place.update((row, key) for row in members)
        return _emissions(members, choice)

    def _forget(self, rows: Sequence[Row]) -> None:
        """Undo what `begin` has done for `rows`, wherever it stopped. They are the newest of their batches."""
        gone = {id(row) for row in rows}
        for key, batch in list(self._batches.items()):
            members = [row for row in batch.rows if id(row) in gone]
            if members:
                batch.drop_newest(members)
            newest = self._newest.get(key)
            if not batch.rows:
                self._newest.pop(key, None)
                if len(self._batches) > 1:
                    del self._batches[key]
            elif newest is not None:
                self._newest[key] = newest[: len(batch.rows)]
        for row in rows:
            self._place.pop(row, None)
        self._sampler.forget(rows)

    def step(self) -> list[Emission]:
        """See `LanguageModel.step`."""
        emissions: list[Emission] = []
        for key, batch in self._batches.items():
            if not batch.rows:
                continue
            newest = self._newest[key]
            logits = self._forward(key, partial(batch.step, newest[:, None]))
            choice = self._sampler.choose(batch.rows, logits)
            self._newest[key] = choice.tokens
            emissions += _emissions(batch.rows, choice)
        return emissions

    def leave(self, rows: Sequence[Row]) -> None:
        """See `LanguageModel.leave`."""
        groups: dict[BatchKey, list[Row]] = {}
        for row in rows:
            groups.setdefault(self._place.pop(row), []).append(row)
        self._sampler.forget(rows)
        for key, members in groups.items():
            batch = self._batches[key]
            position = {id(row): index for index, row in enumerate(batch.rows)}
            batch.leave(members)
            if batch.rows:
                order = [position[id(row)] for row in batch.rows]
                self._newest[key] = self._newest[key][order]
            else:
                del self._newest[key]
                # An empty default batch keeps its buffer for the next request; the others give their memory back.
                if len(self._batches) > 1:
                    del self._batches[key]

    def reset(self) -> None:
        """See `LanguageModel.reset`."""
        self._batches.clear()
        self._newest.clear()
        self._sampler.forget(list(self._place))
        self._place.clear()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def start_alone(self, row: Row) -> AloneRun:
        """See `LanguageModel.start_alone`.

        Raises:
            BadRequest: the row needs more memory or time than one request may take.
        """
        plan = cast("TransformersPlan", row.plan)
        self.check_alone(row)

        def generate(pause: StoppingCriteria) -> list[list[int]]:
            tokens = torch.tensor([list(row.prompt)], device=self._model.device)
            try:
                output: torch.Tensor = self._model.generate(  # it disables gradients itself
                    input_ids=tokens,
                    attention_mask=torch.ones_like(tokens),
                    generation_config=plan.config,
                    max_new_tokens=row.max_new_tokens,
                    max_length=None,
                    tokenizer=self._tokenizer,
                    stopping_criteria=StoppingCriteriaList([pause]),
                    logits_processor=LogitsProcessorList([RequireToken()]),
                )
            except torch.OutOfMemoryError as error:
                raise OutOfMemory(str(error)) from error
            except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
                # `multinomial` refuses a distribution with fewer tokens than beams.
                if isinstance(error, RuntimeError) and "multinomial" not in str(error):
                    raise
                reasons = ", ".join(plan.alone_because)
                raise BadRequest(f"generate_kwargs ({reasons} with the other options): {error}") from error
            return self._new_tokens(output, len(row.prompt), plan.end_tokens)

        return AloneRun(
            generate,
            prepare=lambda: self._activate((row.adapter, False)),
            seed=row.seed,
            prompt_length=len(row.prompt),
            single=plan.width == 1,
        )

    def check_alone(self, row: Row) -> None:
        """Refuse a row outside the batch that costs too much.

        Raises:
            BadRequest: names the numbers.
        """
        most = min(max(self.info.context_tokens, LEAST_ALONE_TOKENS), self._budget_tokens)
        if alone_tokens(row) > most:
            raise BadRequest(
                f"{row.plan.width} sequences of {len(row.prompt) + row.max_new_tokens} tokens side by side are more "
                f"than the {most} tokens that one request may take; lower num_beams or max_new_tokens",
                param="num_beams",
            )

    def run_alone(self, row: Row, stopped: Callable[[], bool]) -> list[list[int]]:
        """Run a row with `plan.alone` to its end, or until `stopped()`."""
        run = self.start_alone(row)
        while True:
            progress = run.advance()
            if progress.sequences is not None:
                return [list(sequence) for sequence in progress.sequences]
            if stopped():
                run.finish_early()

    def _new_tokens(self, output: torch.Tensor, prompt_length: int, end_tokens: frozenset[int]) -> list[list[int]]:
        """The new tokens of every sequence, without the padding behind the end token."""
        pad = self._tokenizer.pad_token_id
        sequences: list[list[int]] = []
        for sequence in output[:, prompt_length:].tolist():
            end = next((index + 1 for index, token in enumerate(sequence) if token in end_tokens), len(sequence))
            tail = sequence[:end]
            while len(tail) > 1 and tail[-1] == pad and pad not in end_tokens:
                tail.pop()
            sequences.append(tail)
        return sequences

    def warm_up(self, *, choose_threads: bool) -> None:
        """Generate a few tokens: proves that the model answers, and finds the number of CPU threads that is
        fastest."""
        if not choose_threads or self._model.device.type != "cpu" or torch.get_num_threads() == 1:
            self._time_tokens()
            return
        most = torch.get_num_threads()
        timings: dict[int, float] = {}
        for threads in sorted({1, most}):
            torch.set_num_threads(threads)
            self._time_tokens()
            timings[threads] = self._time_tokens()
        best = min(timings, key=lambda threads: timings[threads])
        torch.set_num_threads(best)
        log.info("cpu threads: %d (of %d; fastest when tried)", best, most)

    def _time_tokens(self) -> float:
        row = Row(
            prompt=self.encode("a"),
            plan=self.plan({"do_sample": False, "eos_token_id": []}),
            max_new_tokens=WARM_UP_TOKENS,
        )
        if row.plan.alone:
            started = time.perf_counter()
            self.run_alone(row, lambda: False)
            return time.perf_counter() - started
        self.begin([row])
        started = time.perf_counter()
        for _ in range(WARM_UP_TOKENS):
            self.step()
        seconds = time.perf_counter() - started
        self.leave([row])
        return seconds

    def _new_batch(self) -> Batch:
        return Batch(
            self._model,
            layers=self._layers,
            pad_token=self._tokenizer.pad_token_id or 0,
            needs_window_mask=self._windowed,
            keep_logits=self._keeps_logits,
        )

    def _forward(self, key: BatchKey, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        self._activate(key)
        try:
            return work()
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(str(error)) from error

    def _activate(self, key: BatchKey) -> None:
        """Put adapter and rotary regime in effect."""
        adapter, long = key
        if self._adapters:
            self._adapters.activate(adapter)
        self._rope.use(long=long)


@final
class _LongRope:
    """Keeps rows of Phi-3's two rotary regimes apart.

    A "longrope" model rotates with one set of frequencies up to its original context and with another beyond
    it, chosen per forward pass for all rows. A row that may grow beyond therefore uses the long set from its
    first token on (as vLLM does), in a batch of its own.
    """

    def __init__(self, config: Any) -> None:
        parameters = getattr(config, "rope_parameters", None)
        self._parameters: dict[str, Any] | None = None
        if isinstance(parameters, dict) and parameters.get("rope_type") == "longrope":
            self._parameters = parameters
            self._limit = int(parameters["original_max_position_embeddings"])

    def is_long(self, row: Row) -> bool:
        return self._parameters is not None and len(row.prompt) + row.max_new_tokens > self._limit

    def use(self, *, long: bool) -> None:
        if self._parameters is not None:
            # The rotary module compares the highest position with this number at each pass.
            self._parameters["original_max_position_embeddings"] = 0 if long else self._limit


def alone_tokens(row: Row) -> int:
    """Tokens of cache that a row outside the batch may take."""
    return row.plan.width * (len(row.prompt) + row.max_new_tokens)


def _emissions(rows: Sequence[Row], choice: Choice) -> list[Emission]:
    return [
        Emission(row, token, logprob, choice.errors.get(index))
        for index, (row, token, logprob) in enumerate(
            zip(rows, choice.tokens.tolist(), choice.logprobs, strict=True)
        )
    ]  # fmt: skip


def _context(options: InferenceOptions, config: Any, budget_tokens: int) -> int:
    known = int(getattr(config, "max_position_embeddings", 0) or 2048)
    if options.max_model_len and options.max_model_len > known:
        raise ConfigurationError(f"--max_model_len {options.max_model_len} exceeds the model's own limit of {known}")
    context = min(options.max_model_len or known, budget_tokens)
    if context < min(options.max_model_len or known, known):
        log.warning("memory allows a context of %d tokens (the model has %d)", context, known)
    return context
