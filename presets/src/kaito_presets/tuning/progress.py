"""Reports the progress of a tuning run: JSON lines in the log, `GET /progress`, and Prometheus metrics.

`run` and `train` update it; users read the log and `/progress`. The HTTP server runs on a daemon thread, because the
training occupies the main thread.
"""

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, final

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from kaito_presets.serving.tracing import Phases

log = logging.getLogger(__name__)

PREFIX: Final = "KAITO_TUNING_PROGRESS "
"""Prefix of the log lines that contain a report."""


@dataclass(frozen=True, slots=True)
class Report:
    """Progress of a run at one time."""

    phase: str
    """One of starting, data, loading, training, saving, pushing, completed, failed."""
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    learning_rate: float | None = None
    eval_loss: float | None = None
    examples: int = 0
    eta_seconds: float | None = None
    message: str = ""


@final
class Progress:
    """The current report, with its metrics and its HTTP server."""

    def __init__(self) -> None:
        self.report = Report("starting")
        self.phases = Phases(self.report.phase)
        self._registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(f"kaito_tuning_{name}", text, registry=self._registry)
            for name, text in (
                ("step", "Optimizer steps done."),
                ("total_steps", "Optimizer steps of the whole run."),
                ("epoch", "Passes over the data."),
                ("loss", "Training loss of the last report."),
                ("learning_rate", "Learning rate of the last report."),
                ("eval_loss", "Evaluation loss of the last report."),
                ("examples", "Examples trained on."),
                ("eta_seconds", "Estimated time to the last step."),
            )
        }
        self._completed = Gauge("kaito_tuning_completed", "1 when the adapter is written.", registry=self._registry)
        self._server: ThreadingHTTPServer | None = None

    def update(self, report: Report) -> None:
        """Replaces the current report."""
        self.report = report
        self.phases.begin(report.phase)
        values = asdict(report)
        for name, gauge in self._gauges.items():
            if values[name] is not None:
                gauge.set(values[name])
        self._completed.set(report.phase in ("pushing", "completed"))
        log.info("%s%s", PREFIX, json.dumps({name: value for name, value in values.items() if value not in (None, "")}))

    def set_phase(self, name: str, message: str = "") -> None:
        """Replaces phase and message of the current report."""
        self.update(replace(self.report, phase=name, message=message))

    def serve(self, port: int, host: str = "0.0.0.0") -> int | None:  # noqa: S104 - a server in a pod
        """Starts the HTTP server; returns its port, or None if the address cannot be used.

        An address in use is logged and does not fail the run, which is worth more than its metrics.
        """
        progress = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(generate_latest(progress._registry), "text/plain; version=0.0.4; charset=utf-8")
                elif path == "/progress":
                    self._answer(json.dumps(asdict(progress.report)).encode(), "application/json")
                elif path in ("/healthz", "/health"):
                    self._answer(b'{"status": "Healthy"}', "application/json")
                else:
                    self.send_error(404)

            def _answer(self, body: bytes, content_type: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - name of the base class
                log.debug(format, *args)

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            log.warning("metrics disabled: cannot listen on %s:%d: %s", host, port, error)
            return None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="progress", daemon=True).start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stops the HTTP server."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@final
class TrainingRate:
    """Estimates the remaining time from the steps of this process; a resumed run starts at a later step."""

    def __init__(self, *, first_step: int = 0, clock: Any = time.monotonic) -> None:
        self._clock = clock
        self._first = first_step
        self._started = clock()

    def eta_seconds(self, step: int, total: int) -> float | None:
        """Estimates the seconds until step `total`; None before the first step."""
        done = step - self._first
        if done <= 0:
            return None
        return float((self._clock() - self._started) / done * (total - step))
