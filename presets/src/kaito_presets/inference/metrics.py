"""The numbers of the inference server, in Prometheus text and, for old clients, in upstream's JSON.

Written by the server (requests), the scheduler (queue, steps) and the service (tokens, latencies); read from
`/metrics`. One object holds one registry, so that tests and several servers in a process do not meet.
"""

from collections.abc import Sequence
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kaito_presets.machine import GpuReading, read_gpus, read_machine

_LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RATE_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@final
class Metrics:
    """Every metric of the server; implements the observers of scheduler and service."""

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
        self._unbatched = Counter(
            "kaito_generation_unbatched", "Requests that ran outside the batch, by the option that requires it.",
            ("option",), registry=registry,
        )  # fmt: skip
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
        self._resident = Gauge("process_resident_memory_bytes", "Resident memory of the server.", registry=registry)

    # Observers of the scheduler and the service.

    def queue_changed(self, waiting: int, live: int) -> None:
        """Rows waiting and in the batch."""
        self._queued.set(waiting)
        self._in_flight.set(live)

    def step_done(self, rows: int, seconds: float) -> None:
        """One step of the batch."""
        self._generation_tokens.inc(rows)
        self._step.observe(seconds)

    def ran_alone(self, because: Sequence[str]) -> None:
        """A row was started outside the batch."""
        for option in because:
            self._unbatched.labels(option).inc()

    def generated_alone(self, tokens: int) -> None:
        """A row outside the batch ended; its first token is counted by `first_token`."""
        self._generation_tokens.inc(max(0, tokens - 1))

    def started(self, prompt_tokens: int) -> None:
        """A request was queued."""
        self._prompt_tokens.inc(prompt_tokens)

    def first_token(self, seconds: float) -> None:
        """A row's first token; counted here because it comes from reading the prompt, not from a step."""
        self._generation_tokens.inc()
        self._first_token.observe(max(0.0, seconds))

    def generated(self, tokens: int, seconds: float) -> None:
        """A row ended."""
        if tokens and seconds > 0:
            self._rate.observe(tokens / seconds)

    def prometheus(self) -> bytes:
        """The text format."""
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
        """Upstream's document (v0.3), with both halves and the right units."""
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
