"""Metrics of the inference server: Prometheus text and, for clients of upstream Kaito, JSON.

The server records requests, the scheduler queue and steps, the service tokens and latencies; `GET /metrics` renders
them. Each object has a registry of its own, so that several servers in one process (in tests) do not share metrics.
"""

from collections.abc import Sequence
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from kaito_presets.inference.language_model import PrefixUsage
from kaito_presets.machine import GpuReading, read_gpus, read_machine
from kaito_presets.serving.health import LAST_REQUEST, LAST_REQUEST_HELP

disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` series double the counters and are not read

_LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RATE_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@final
class Metrics:
    """All metrics of the server; implements the observer protocols of scheduler and service."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("kaito_http_requests", "Requests answered.", ("route", "code"), registry=registry)
        self.duration = Histogram(
            "kaito_http_request_duration_seconds", "Time to the last byte.", ("route",),
            buckets=_LATENCY_BUCKETS, registry=registry,
        )  # fmt: skip
        self._prompt_tokens = Counter("kaito_prompt_tokens", "Tokens read.", registry=registry)
        self._generation_tokens = Counter("kaito_generation_tokens", "Tokens generated.", registry=registry)
        self._first_token = Histogram(
            "kaito_time_to_first_token_seconds", "From the request to its first token, queueing included.",
            buckets=_LATENCY_BUCKETS, registry=registry,
        )  # fmt: skip
        self._rate = Histogram(
            "kaito_generation_tokens_per_second", "Tokens per second of one answer, queueing included.",
            buckets=_RATE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._step = Histogram(
            "kaito_decode_step_seconds", "One token for every sequence of the batch.",
            buckets=_LATENCY_BUCKETS, registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge("kaito_generation_in_flight", "Sequences in the batch.", registry=registry)
        self._queued = Gauge("kaito_generation_queue_length", "Sequences waiting.", registry=registry)
        self._last_request = Gauge(LAST_REQUEST, LAST_REQUEST_HELP, registry=registry)
        self._last_request.set_to_current_time()
        self._prefix_hits = Counter(
            "kaito_prefix_cache_hits", "Prompts that began with a stored prefix.", registry=registry
        )
        self._prefix_tokens = Counter(
            "kaito_prefix_cache_reused_tokens", "Tokens of prompts that were not computed again.", registry=registry
        )
        self._prefix_bytes = Gauge("kaito_prefix_cache_bytes", "Memory of stored prefixes.", registry=registry)
        self._prefix_usage = PrefixUsage()
        self._unbatched = Counter(
            "kaito_generation_unbatched", "Requests that ran outside the batch, by the option that requires it.",
            ("option",), registry=registry,
        )  # fmt: skip
        self._ignored_fields = Counter(
            "kaito_requests_with_ignored_fields", "Requests with unknown fields, which were ignored.", registry=registry
        )
        self.model_unbatched = Gauge(
            "kaito_model_unbatched",
            "1 for each option of the model's generation config (or model_architecture) because of which every request "
            "runs outside the batch.",
            ("option",), registry=registry,
        )  # fmt: skip
        self.model_loaded = Gauge("kaito_model_loaded", "1 once the model answers.", registry=registry)
        self.adapter_loaded = Gauge(
            "kaito_adapter_loaded", "Strength of each loaded adapter.", ("name",), registry=registry
        )
        self._gpu_used = Gauge("kaito_gpu_memory_used_bytes", "GPU memory in use.", ("gpu",), registry=registry)
        self._gpu_total = Gauge("kaito_gpu_memory_total_bytes", "GPU memory.", ("gpu",), registry=registry)
        self._gpu_load = Gauge("kaito_gpu_utilization_ratio", "GPU load, 0 to 1.", ("gpu",), registry=registry)
        self.open_sequences = 0
        """Sequences that wait or are being generated."""
        self._resident = Gauge("process_resident_memory_bytes", "Resident memory of the server.", registry=registry)

    # Observer protocols of the scheduler and the service.

    def queue_changed(self, waiting: int, live: int) -> None:
        """See `events.Observer`."""
        self._last_request.set_to_current_time()
        self._queued.set(waiting)
        self._in_flight.set(live)
        self.open_sequences = waiting + live

    def step_done(self, rows: int, seconds: float) -> None:
        """See `events.Observer`."""
        self._generation_tokens.inc(rows)
        self._step.observe(seconds)

    def prefix_cache_changed(self, usage: PrefixUsage) -> None:
        """See `events.Observer`."""
        before, self._prefix_usage = self._prefix_usage, usage
        self._prefix_hits.inc(max(0, usage.hits - before.hits))
        self._prefix_tokens.inc(max(0, usage.reused_tokens - before.reused_tokens))
        self._prefix_bytes.set(usage.stored_bytes)

    def unbatched_started(self, reasons: Sequence[str]) -> None:
        """See `events.Observer`."""
        for option in reasons:
            self._unbatched.labels(option).inc()

    def unbatched_finished(self, tokens: int) -> None:
        """See `events.Observer`; the first token is not counted here, but by `first_token`."""
        self._generation_tokens.inc(max(0, tokens - 1))

    def started(self, prompt_tokens: int) -> None:
        """See `service.Observer`."""
        self._prompt_tokens.inc(prompt_tokens)

    def first_token(self, seconds: float) -> None:
        """See `service.Observer`; counts the token, because it is the result of the prefill and not of a step."""
        self._generation_tokens.inc()
        self._first_token.observe(max(0.0, seconds))

    def generated(self, tokens: int, seconds: float) -> None:
        """See `service.Observer`."""
        if tokens and seconds > 0:
            self._rate.observe(tokens / seconds)

    def fields_ignored(self) -> None:
        """See `service.Observer`."""
        self._ignored_fields.inc()

    def prometheus(self) -> bytes:
        """Renders Prometheus' text format."""
        for reading in read_gpus():
            self._gpu_used.labels(reading.id).set(reading.used_bytes)
            self._gpu_total.labels(reading.id).set(reading.total_bytes)
            if reading.load is not None:
                self._gpu_load.labels(reading.id).set(reading.load)
        machine = read_machine()
        if machine:
            self._resident.set(machine.resident_bytes)
        return generate_latest(self.registry)

    def json(self) -> dict[str, object]:
        """Renders the JSON document of upstream Kaito v0.3, with GPU and CPU in one document and correct units."""
        machine = read_machine()
        return {
            "gpu_info": [_gpu_document(reading) for reading in read_gpus()] or None,
            "cpu_info": machine
            and {
                "load_percentage": machine.load_percentage,
                "physical_cores": machine.physical_cores,
                "total_cores": machine.total_cores,
                "memory": {"used": _gigabytes(machine.used_bytes), "total": _gigabytes(machine.total_bytes)},
            },
        }


def _gpu_document(reading: GpuReading) -> dict[str, object]:
    return {
        "id": reading.id,
        "name": reading.name,
        "load": "unknown" if reading.load is None else f"{reading.load:.2%}",
        "temperature": "unknown" if reading.celsius is None else f"{reading.celsius} C",
        "memory": {"used": _gigabytes(reading.used_bytes), "total": _gigabytes(reading.total_bytes)},
    }


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.2f} GB"
