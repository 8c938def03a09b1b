"""`kaito-tuning`: the program in the container of a tuning job.

Runs as a console script or through `/workspace/tfs/fine_tuning.py`. Maps every result to an exit code (see
`kaito_presets.errors`). The reason of a failure is the last line of the log and the termination message of the
container.
"""

import json
import logging
import signal
import sys
import threading
from pathlib import Path

from kaito_presets.errors import PresetError
from kaito_presets.serving.tracing import start_tracing
from kaito_presets.tuning.config import TrainingConfig, read_training_config
from kaito_presets.tuning.options import TuningOptions, read_options
from kaito_presets.tuning.progress import Progress
from kaito_presets.tuning.run import Plan, check_registry, make_plan, run

log = logging.getLogger("kaito_presets.tuning")

TERMINATION_LOG = Path("/dev/termination-log")
"""File whose content becomes the termination message (default of `terminationMessagePath`)."""
INTERRUPTED = 128 + signal.SIGTERM
"""Exit code of a run that SIGTERM interrupted, as for a process that does not handle it."""


def main() -> int:
    """Runs the job; returns the exit code."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    progress, tracing = Progress(), start_tracing("kaito-tuning")
    stop = threading.Event()
    try:
        options = read_options(sys.argv[1:])
        config = read_training_config(options.config)
        if options.dry_run:
            plan = make_plan(options, config, progress)
            check_registry(options, plan.image)
            print(json.dumps(_plan_document(plan, options, config), indent=2))  # noqa: T201 - the output of --dry-run
            return 0

        def request_stop(number: int, frame: object) -> None:  # noqa: ARG001 - the signature of handlers
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, request_stop)
        if options.metrics_port >= 0:
            progress.serve(options.metrics_port, options.metrics_host)
        return 0 if run(options, config, progress, stop) else INTERRUPTED
    except PresetError as error:
        progress.set_phase("failed", str(error))
        _report_failure(str(error))
        return error.exit_code
    except Exception as error:
        log.exception("tuning failed")
        progress.set_phase("failed", str(error))
        _report_failure(f"{type(error).__name__}: {error}")
        return 1
    finally:
        progress.close()
        moments = {name: at for name, at in progress.phases.moments.items() if name not in {"completed", "failed"}}
        tracing.record_phases("tune", moments)
        tracing.close()


def _plan_document(plan: Plan, options: TuningOptions, config: TrainingConfig) -> dict[str, object]:
    return {
        "model": plan.source,
        "method": options.method,
        "bits": config.bits(options.method),
        "output": str(plan.output),
        "image": str(plan.image) if plan.image else None,
        "files": [str(file) for file in plan.dataset.files],
        "columns": list(plan.dataset.columns),
        "shape": plan.dataset.shape,
        "examples": {"train": len(plan.dataset.train), "evaluate": len(plan.dataset.evaluate)},
        "config": config.model_dump(mode="json"),
    }


def _report_failure(text: str) -> None:
    print(f"kaito-tuning: {text}", file=sys.stderr)  # noqa: T201 - the last line of the log is the reason
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
