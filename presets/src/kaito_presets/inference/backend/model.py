"""`TransformersModel`: implements `LanguageModel` with transformers.

`main` creates it with `open_model`. The adapter and the rotary mode are state of the whole model, so rows that differ
in them cannot share a forward pass: there is one batch per combination, and a step advances each batch once.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import copy
import dataclasses
import inspect
import logging
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast, final

import torch
import transformers
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import get_layer_types_and_kwargs

from kaito_presets.errors import AdapterError, BadRequest, ConfigurationError
from kaito_presets.inference.backend import cpu_linear
from kaito_presets.inference.backend.adapters import LoadedAdapters, weight_bytes
from kaito_presets.inference.backend.batch import Batch
from kaito_presets.inference.backend.chat_template import template_facts
from kaito_presets.inference.backend.grammar import GrammarCompiler
from kaito_presets.inference.backend.load import check_source, load_model, load_tokenizer
from kaito_presets.inference.backend.memory import cache_budget_bytes, cache_bytes_per_token
from kaito_presets.inference.backend.plan import TransformersPlan, make_plan, usable_config
from kaito_presets.inference.backend.prefix_cache import PrefixCache, token_blocks
from kaito_presets.inference.backend.prompts import SLICE_TOKENS as PROMPT_SLICE_TOKENS, BatchKey, PromptReader
from kaito_presets.inference.backend.sampling import Choice, RequireToken, Sampler
from kaito_presets.inference.backend.unbatched import GPU_SLICE_TOKENS, SLICE_TOKENS, Pauses, UnbatchedRun
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
)
from kaito_presets.inference.options import InferenceOptions
from kaito_presets.machine import read_machine
from kaito_presets.serving.adapters import Adapter

log = logging.getLogger(__name__)

BATCHABLE_LAYERS: Final = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Types of layers whose state is keys and values per position. Models with other layers (state space models, hybrids)
run one row at a time."""
MODEL_CANNOT_BATCH: Final = "model_architecture"
"""Reported as the reason for which every request runs outside the batch."""
MIN_UNBATCHED_TOKENS: Final = 8192
"""Tokens that a row outside the batch may use even if the context of the model is shorter: four beams of 2048
tokens."""
WARM_UP_TOKENS: Final = 8
PREFIX_CACHE_SHARE: Final = 0.25
"""Share of the memory for keys and values that stored prefixes may use. Running rows take precedence."""
Result = TypeVar("Result")
_NO_DEFAULTS: Final[Mapping[str, Option]] = {}


def open_model(
    options: InferenceOptions, adapters: Sequence[Adapter], *, on_loaded: Callable[[], None] = lambda: None
) -> "TransformersModel":
    """Loads model, tokenizer and adapters, and generates a few tokens as a test.

    Args:
        options: the model and how to load it.
        adapters: adapters to load with it.
        on_loaded: called after everything is in memory and before the test.

    Raises:
        ModelLoadError: a part cannot be loaded; the message names it.
    """
    check_source(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer(options)
    model = load_model(options)
    loaded = LoadedAdapters(model, adapters, options.combination_type, options.pretrained_model_name_or_path)
    if cpu_linear.is_faster(model) and cpu_linear.convert(model):
        log.info("this CPU has no bfloat16 instructions: 16-bit weights, computation in float32")
    result = TransformersModel(options, model, tokenizer, loaded)
    on_loaded()
    result.warm_up(choose_threads=options.threads == 0)
    return result


@final
class TransformersModel:
    """Implements `language_model.LanguageModel`."""

    def __init__(self, options: InferenceOptions, model: Any, tokenizer: Any, adapters: LoadedAdapters) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._adapters = adapters
        self._sampler = Sampler()
        self._batches: dict[BatchKey, Batch] = {}
        self._place: dict[Row, BatchKey] = {}
        self._newest: dict[BatchKey, torch.Tensor] = {}
        self._unbatched: tuple[Row, UnbatchedRun] | None = None
        """The latest row outside the batch, and its run."""
        embeddings: int = model.get_input_embeddings().num_embeddings
        head = model.get_output_embeddings()
        self._vocabulary = min(embeddings, head.weight.shape[0]) if hasattr(head, "weight") else embeddings
        self._generation_config = usable_config(
            model.generation_config,
            end=tokenizer.eos_token_id,
            pad=tokenizer.pad_token_id,
            vocabulary=self._vocabulary,
        )
        self._grammars = GrammarCompiler(
            tokenizer,
            vocabulary=self._vocabulary,
            end_tokens=sorted(make_plan(self._generation_config, {}, {}).end_tokens),
        )
        text_config = model.config.get_text_config(decoder=True)
        kinds = set(get_layer_types_and_kwargs(text_config)[0])
        self._batchable = kinds <= BATCHABLE_LAYERS
        self._windowed = kinds != {"full_attention"}
        self._rope = _LongRope(text_config)
        self._layers: int = text_config.num_hidden_layers
        self._token_bytes = cache_bytes_per_token(model.config, model.dtype)
        self._budget_tokens = max(64, cache_budget_bytes(model.device) // self._token_bytes)
        self._prefixes: PrefixCache | None = None
        if options.enable_prefix_caching and self._batchable:
            self._prefixes = PrefixCache(int(self._budget_tokens * self._token_bytes * PREFIX_CACHE_SHARE))
        self._prompts = PromptReader(
            model,
            layers=self._layers,
            pad_token=tokenizer.pad_token_id or 0,
            keep_logits="logits_to_keep" in inspect.signature(model.forward).parameters,
            prefixes=self._prefixes,
            batch_key=self._key_of,
            prefix_key=self._prefix_key,
        )
        self.info = ModelInfo(
            name=options.name,
            context_tokens=_context(options, text_config, self._budget_tokens),
            created=round(time.time()),  # noqa: TID251 - a wall-clock stamp on the wire
            vocabulary=embeddings,
            adapters=adapters.names,
            adapter_versions=adapters.versions,
            combined_version=adapters.combined,
            engine="transformers",
            engine_version=transformers.__version__,
            source=options.pretrained_model_name_or_path,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            **template_facts(tokenizer, options.tool_call_parser),
            weights_bytes=sum(part.numel() * part.element_size() for part in model.parameters()),
            cache_tokens=self._budget_tokens,
            unbatched_reasons=self.plan({}).unbatched_reasons,
        )

    def plan(self, options: Mapping[str, Option], defaults: Mapping[str, Option] = _NO_DEFAULTS) -> TransformersPlan:
        """See `LanguageModel.plan`."""
        plan = make_plan(self._generation_config, options, defaults, self._vocabulary)
        if self._batchable or plan.is_unbatched:
            return plan
        if plan.logit_bias or plan.frequency_penalty or plan.presence_penalty:
            raise BadRequest(
                "frequency_penalty, presence_penalty and logit_bias are not supported for this model, "
                "which runs one sequence at a time",
            )
        return dataclasses.replace(
            plan, unbatched_reasons=(MODEL_CANNOT_BATCH,), sequences=1, width=max(plan.width, plan.sequences)
        )

    # Text.

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """See `LanguageModel.encode`."""
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def encode_chat(self, messages: Sequence[Message], template: TemplateOptions | None = None) -> list[int]:
        """See `LanguageModel.encode_chat`."""
        if not self._tokenizer.chat_template:
            raise BadRequest("this model has no chat template; set --chat_template or send a prompt")
        turns = [{"role": message.role, "content": message.content, **message.extra} for message in messages]
        template = template or TemplateOptions()
        try:
            encoded = self._tokenizer.apply_chat_template(
                turns,
                tools=[*template.tools] or None,
                add_generation_prompt=template.add_generation_prompt,
                continue_final_message=template.continue_final_message,
                return_dict=True,
                **template.variables,
            )
        except Exception as error:  # a template may raise any exception
            raise BadRequest(f"the model's chat template rejects these messages: {error}", param="messages") from error
        return list(encoded["input_ids"])

    def decode(self, tokens: Sequence[int], *, clean_up_spaces: bool = False, special: bool = False) -> str:
        """See `LanguageModel.decode`."""
        text = self._tokenizer.decode(
            list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=clean_up_spaces
        )
        return str(text)

    def vocabulary_entry(self, token: int) -> str:
        """See `LanguageModel.vocabulary_entry`."""
        return str(self._tokenizer.convert_ids_to_tokens(token))

    # Adapters. Like the methods that compute, called by one thread only.

    @property
    def stored_adapters(self) -> frozenset[str]:
        """Versions of adapters in memory."""
        return self._adapters.stored

    def load_adapter(self, adapter: Adapter) -> None:
        """Loads an adapter, or a new version of one; requests select it from now on.

        Raises:
            AdapterError: the adapter cannot be used with this model, or the memory does not suffice.
        """
        _check_adapter_memory(adapter, self._model.device)
        self._adapters.load(adapter)
        self._update_adapters()

    def retire_adapter(self, name: str) -> None:
        """Stops offering an adapter to requests."""
        self._adapters.retire(name)
        self._update_adapters()

    def release_adapters(self, used: Collection[str | None]) -> frozenset[str]:
        """Deletes versions that are neither offered nor in `used`; returns the names of those that are still used."""
        return self._adapters.release(used)

    def _update_adapters(self) -> None:
        self.info = dataclasses.replace(
            self.info,
            adapters=self._adapters.names,
            adapter_versions=self._adapters.versions,
            combined_version=self._adapters.combined,
        )

    def compile_grammar(self, grammar: Grammar) -> object:
        """See `LanguageModel.compile_grammar`."""
        return self._grammars.compile(grammar)

    # Computation.

    def can_admit(self, live: Sequence[Row], candidate: Row) -> bool:
        """See `LanguageModel.can_admit`; in the batch, every row uses as many columns as the longest one."""
        return _reserved_tokens([*live, candidate]) <= self._budget_tokens

    def prefill(self, rows: Sequence[Row], limit: int | None = None) -> list[RowOutput]:
        """See `LanguageModel.prefill`."""
        self._make_room(rows)
        try:
            outputs = self._prefill_slice(rows, limit or PROMPT_SLICE_TOKENS)
            while limit is None and len(outputs) < len(rows):
                rest = [row for row in rows if row not in self._place]
                outputs += self._prefill_slice(rest, PROMPT_SLICE_TOKENS)
            order = {row: index for index, row in enumerate(rows)}
            return sorted(outputs, key=lambda output: order[output.row])
        except BaseException:
            # Prompts that are complete may be in their batch already when the next ones fail.
            self._revert_prefill(rows)
            if limit is None:
                self._prompts.drop(rows)
            raise

    def _make_room(self, rows: Sequence[Row]) -> None:
        """Evicts stored prefixes from the memory that `rows` and the running rows may use."""
        if self._prefixes is None:
            return
        beside = [self._unbatched[0]] if self._unbatched is not None and self._unbatched[1].is_open else []
        reserved = _reserved_tokens(list({*self._place, *self._prompts.rows, *beside, *rows}))
        self._prefixes.shrink((self._budget_tokens - reserved) * self._token_bytes)

    def _prefill_slice(self, rows: Sequence[Row], limit: int) -> list[RowOutput]:
        """Computes one slice of prompts; adds rows whose prompts are complete to their batch."""
        if not rows:
            return []
        reading = self._prompts.select(rows, limit)
        key, members = reading.key, reading.rows
        logits = self._forward(key, lambda: self._prompts.advance(reading, limit))
        if logits is None:
            return []
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = Batch(self._model, layers=self._layers, needs_window_mask=self._windowed)
        batch.add(members, reading.starts, reading.width, reading.layers)
        choice = self._sampler.choose(members, logits)
        before = self._newest.get(key)
        self._newest[key] = choice.tokens if before is None else torch.cat([before, choice.tokens])
        self._place.update((row, key) for row in members)
        self._prompts.drop(members)
        for row in members:
            row.prompt_tokens_read = len(row.prompt)
        return _row_outputs(members, choice)

    def _revert_prefill(self, rows: Sequence[Row]) -> None:
        """Removes `rows`, the newest of their batches, after a `prefill` that stopped at any point."""
        removed_ids = {id(row) for row in rows}
        for key, batch in list(self._batches.items()):
            members = [row for row in batch.rows if id(row) in removed_ids]
            if members:
                batch.remove_newest(members)
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

    def step(self) -> list[RowOutput]:
        """See `LanguageModel.step`."""
        outputs: list[RowOutput] = []
        for key, batch in self._batches.items():
            if not batch.rows:
                continue
            newest = self._newest[key]
            logits = self._forward(key, partial(batch.step, newest[:, None]))
            choice = self._sampler.choose(batch.rows, logits)
            self._newest[key] = choice.tokens
            outputs += _row_outputs(batch.rows, choice)
        return outputs

    def remove(self, rows: Sequence[Row]) -> None:
        """See `LanguageModel.remove`."""
        groups: dict[BatchKey, list[Row]] = {}
        for row in rows:
            if row in self._place:
                groups.setdefault(self._place.pop(row), []).append(row)
        self._prompts.drop(rows)
        self._sampler.forget(rows)
        for key, members in groups.items():
            batch = self._batches[key]
            self._remember(key, batch, members)
            position = {id(row): index for index, row in enumerate(batch.rows)}
            batch.remove(members)
            if batch.rows:
                order = [position[id(row)] for row in batch.rows]
                self._newest[key] = self._newest[key][order]
            else:
                del self._newest[key]
                # An empty default batch keeps its buffer for the next request; the others give their memory back.
                if len(self._batches) > 1:
                    del self._batches[key]

    def _remember(self, key: BatchKey, batch: Batch, rows: Sequence[Row]) -> None:
        """Stores prompt and completion of ended rows, because the next turn of a conversation begins with them."""
        if self._prefixes is None:
            return
        for row in rows:
            index, start, columns = batch.start_of(row)
            # The newest token has no keys and values yet.
            tokens = [*row.prompt, *row.output_tokens][:columns]
            self._prompts.remember(key, token_blocks(tokens), batch.layers, index, start)

    @property
    def prefix_usage(self) -> PrefixUsage:
        """See `LanguageModel.prefix_usage`."""
        cache = self._prefixes
        return PrefixUsage(cache.hits, cache.reused_tokens, cache.used_bytes) if cache is not None else PrefixUsage()

    def reset(self) -> None:
        """See `LanguageModel.reset`."""
        self._prompts.clear()
        self._batches.clear()
        self._newest.clear()
        self._sampler.forget(list(self._place))
        self._place.clear()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def start_unbatched(self, row: Row) -> UnbatchedRun:
        """See `LanguageModel.start_unbatched`.

        Raises:
            BadRequest: the row needs more memory or time than one request may take.
        """
        plan = cast("TransformersPlan", row.plan)
        self.check_unbatched(row)
        self._make_room([row])
        config = copy.copy(plan.config)
        if self._batchable:
            size = SLICE_TOKENS if self._model.device.type == "cpu" else GPU_SLICE_TOKENS
            config.prefill_chunk_size = max(32, size // plan.width)

        def generate(pauses: Pauses) -> list[list[int]]:
            tokens = torch.tensor([list(row.prompt)], device=self._model.device)
            try:
                with pauses.between_slices(self._model):
                    output: torch.Tensor = self._model.generate(  # disables gradients
                        input_ids=tokens,
                        attention_mask=torch.ones_like(tokens),
                        generation_config=config,
                        max_new_tokens=row.max_new_tokens,
                        max_length=None,
                        tokenizer=self._tokenizer,
                        stopping_criteria=StoppingCriteriaList([pauses.after_token]),
                        logits_processor=LogitsProcessorList([RequireToken()]),
                    )
            except torch.OutOfMemoryError as error:
                raise OutOfMemory(str(error)) from error
            except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
                # `multinomial` raises a RuntimeError if fewer tokens than beams have a probability.
                if isinstance(error, RuntimeError) and "multinomial" not in str(error):
                    raise
                reasons = ", ".join(plan.unbatched_reasons)
                raise BadRequest(f"generate_kwargs ({reasons} with the other options): {error}") from error
            return self._new_tokens(output, len(row.prompt), plan.end_tokens)

        run = UnbatchedRun(
            generate,
            prepare=lambda: self._activate((row.adapter, False)),
            seed=row.seed,
            prompt_length=len(row.prompt),
            single=plan.width == 1,
        )
        self._unbatched = (row, run)
        return run

    def check_unbatched(self, row: Row) -> None:
        """See `LanguageModel.check_unbatched`."""
        limit = min(max(self.info.context_tokens, MIN_UNBATCHED_TOKENS), self._budget_tokens)
        if unbatched_cache_tokens(row) > limit:
            raise BadRequest(
                f"{row.plan.width} sequences of {len(row.prompt) + row.max_new_tokens} tokens at the same time exceed "
                f"the {limit} tokens that one request may use; lower num_beams or max_new_tokens",
                param="num_beams",
            )

    def run_unbatched(self, row: Row, stopped: Callable[[], bool]) -> list[list[int]]:
        """Runs a row outside the batch to its end, or until `stopped` returns True."""
        run = self.start_unbatched(row)
        while True:
            progress = run.advance()
            if progress.sequences is not None:
                return [list(sequence) for sequence in progress.sequences]
            if stopped():
                run.finish_early()

    def _new_tokens(self, output: torch.Tensor, prompt_length: int, end_tokens: frozenset[int]) -> list[list[int]]:
        """Returns the new tokens of every sequence up to its end token, without the padding that `generate` appends."""
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
        """Generates a few tokens: tests the model, and selects the faster of one and all CPU threads.

        A small model is faster with one thread, because starting the threads costs more than their share of the work.
        """
        if not choose_threads or self._model.device.type != "cpu" or torch.get_num_threads() == 1:
            self._time_tokens()
            return
        available = torch.get_num_threads()
        timings: dict[int, float] = {}
        for threads in sorted({1, available}):
            torch.set_num_threads(threads)
            self._time_tokens()
            timings[threads] = self._time_tokens()
        best = min(timings, key=lambda threads: timings[threads])
        torch.set_num_threads(best)
        log.info("using %d of %d CPU threads, the fastest in a measurement", best, available)

    def _time_tokens(self) -> float:
        row = Row(
            prompt=self.encode("a"),
            plan=self.plan({"do_sample": False, "eos_token_id": []}),
            max_new_tokens=WARM_UP_TOKENS,
        )
        if row.plan.is_unbatched:
            started = time.perf_counter()
            self.run_unbatched(row, lambda: False)
            return time.perf_counter() - started
        self.prefill([row])
        started = time.perf_counter()
        for _ in range(WARM_UP_TOKENS):
            self.step()
        seconds = time.perf_counter() - started
        self.remove([row])
        return seconds

    def _forward(self, key: BatchKey, work: Callable[[], Result]) -> Result:
        self._activate(key)
        try:
            return work()
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(str(error)) from error

    def _key_of(self, row: Row) -> BatchKey:
        return row.adapter, self._rope.is_long(row)

    def _prefix_key(self, key: BatchKey) -> Hashable:
        adapter, long = key
        return self._adapters.fingerprint(adapter), long

    def _activate(self, key: BatchKey) -> None:
        """Activates the adapter and rotary mode of a batch."""
        adapter, long = key
        self._adapters.activate(adapter)
        self._rope.use(long=long)


@final
class _LongRope:
    """Selects the rotary frequencies of a "longrope" model (Phi-3).

    Such a model has two sets of frequencies, one for sequences up to its original context and one for longer ones, and
    selects one per forward pass for all rows. Keys in the cache keep the frequencies of their pass, so a row must not
    change the set. A row that may exceed the original context therefore uses the long set from its first token (as in
    vLLM), in a separate batch.
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
            # In each pass, the rotary module compares the highest position with this number.
            self._parameters["original_max_position_embeddings"] = 0 if long else self._limit


def _reserved_tokens(rows: Sequence[Row]) -> int:
    """Computes the tokens of cache that rows may use; in the batch, every row uses as many as the longest one."""
    batched = [row for row in rows if not row.plan.is_unbatched]
    longest = max((len(row.prompt) + row.max_new_tokens for row in batched), default=0)
    return len(batched) * longest + sum(unbatched_cache_tokens(row) for row in rows if row.plan.is_unbatched)


def unbatched_cache_tokens(row: Row) -> int:
    """Computes the most tokens of cache that a row outside the batch uses."""
    return row.plan.width * (len(row.prompt) + row.max_new_tokens)


def _row_outputs(rows: Sequence[Row], choice: Choice) -> list[RowOutput]:
    return [
        RowOutput(row, token, logprob, choice.errors.get(index))
        for index, (row, token, logprob) in enumerate(
            zip(rows, choice.tokens.tolist(), choice.logprobs, strict=True)
        )
    ]  # fmt: skip


def _context(options: InferenceOptions, config: Any, budget_tokens: int) -> int:
    model_limit = int(getattr(config, "max_position_embeddings", 0) or 2048)
    if options.max_model_len and options.max_model_len > model_limit:
        raise ConfigurationError(f"--max_model_len {options.max_model_len} exceeds the model's limit of {model_limit}")
    context = min(options.max_model_len or model_limit, budget_tokens)
    if context < min(options.max_model_len or model_limit, model_limit):
        log.warning("memory allows a context of %d tokens (the model has %d)", context, model_limit)
    return context


def _check_adapter_memory(adapter: Adapter, device: torch.device) -> None:
    """Rejects an adapter that does not fit: its weights, and its part of the combination.

    Raises:
        AdapterError: the message contains the needed and the free memory.
    """
    needed = 2 * weight_bytes(adapter)
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
        free -= torch.cuda.memory_allocated(device)
    else:
        machine = read_machine()
        free = machine.available_bytes if machine else needed
    if needed > free:
        raise AdapterError(
            adapter.name,
            f"needs {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free: remove an adapter, or use a larger "
            "instance type",
        )
