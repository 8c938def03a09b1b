"""Runs one tuning job: data, checks, training (resumed if it was interrupted), metadata, push.

Called by `main`. Cheap checks come first, the registry's answer among them: a run whose result cannot be pushed
does not start. A finished adapter is never trained again. A push that fails after training is retried for a
bounded time, while the container, and with it the adapter, is still there.
"""

import logging
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from kaito_config.addresses import refusal
from kaito_config.image_references import ImageReference

from kaito_presets.errors import ConfigurationError, PushError, RegistryError
from kaito_presets.oci.adapter_image import check_push, push_adapter
from kaito_presets.oci.reference import parse_reference
from kaito_presets.tuning.config import TrainingConfig
from kaito_presets.tuning.dataset import Dataset, load_dataset
from kaito_presets.tuning.download import download_all
from kaito_presets.tuning.options import TuningOptions
from kaito_presets.tuning.progress import Progress
from kaito_presets.tuning.record import claim_output, fingerprint, is_completed, last_checkpoint, write_metadata

log = logging.getLogger(__name__)

FIRST_PUSH_PAUSE_SECONDS: Final = 10.0
LONGEST_PUSH_PAUSE_SECONDS: Final = 60.0
"""Between two attempts to push, after the retries of a single request have failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do; made of everything that can be checked without a model."""

    source: str
    output: Path
    dataset: Dataset
    image: ImageReference | None


def make_plan(options: TuningOptions, config: TrainingConfig, progress: Progress) -> Plan:
    """Check configuration and data.

    Raises:
        PresetError: configuration or data are wrong.
    """
    config.bits(options.method)
    output = options.output(config)
    image = parse_reference(options.push_image) if options.push_image else None
    progress.phase("data")
    download_all(
        options.data_urls, options.data_dir, refuse=partial(refusal, in_cluster=options.allow_in_cluster_data_urls)
    )
    dataset = load_dataset(config.DatasetConfig, options.data_dir, options.base)
    log.info(
        "dataset: %d examples to train, %d to evaluate, as %s, from %s; columns: %s",
        len(dataset.train), len(dataset.evaluate), dataset.shape,
        ", ".join(file.name for file in dataset.files), ", ".join(dataset.columns),
    )  # fmt: skip
    return Plan(options.model_source(config), output, dataset, image)


def run(options: TuningOptions, config: TrainingConfig, progress: Progress, stop: threading.Event) -> bool:
    """Do it; False if it was asked to stop before the end.

    Raises:
        PresetError: says what went wrong; see `errors` for the exit codes.
    """
    plan = make_plan(options, config, progress)
    claim_output(plan.output, fingerprint(config, options.method, plan.source, plan.dataset))
    if is_completed(plan.output):
        log.info("the adapter in %s is complete", plan.output)
    else:
        check_registry(options, plan.image)
        if not _train(options, config, plan, progress, stop):
            return False
    if plan.image and not _push_with_patience(options, plan, plan.image, progress, stop):
        return False
    progress.phase("completed", str(plan.image or plan.output))
    return True


def _train(
    options: TuningOptions, config: TrainingConfig, plan: Plan, progress: Progress, stop: threading.Event
) -> bool:
    # torch and transformers take seconds to import; everything above fails without them.
    from kaito_presets.tuning.train import Job, check_arguments, train

    check_arguments(config)
    checkpoint = last_checkpoint(plan.output)
    if checkpoint:
        log.info("resuming from %s", checkpoint.name)
    job = Job(
        config=config,
        method=options.method,
        source=plan.source,
        dataset=plan.dataset,
        output=plan.output,
        checkpoint=checkpoint,
        check_memory=not options.skip_memory_check,
    )
    outcome = train(job, progress, stop)
    if not outcome.finished:
        log.info("stopped at step %d; the next start goes on from there", outcome.steps)
        return False
    write_metadata(
        plan.output,
        base_model=options.model_name or Path(plan.source).name,
        method=options.method,
        steps=outcome.steps,
        loss=outcome.loss,
        target_modules=list(outcome.targets),
        trainable_parameters=outcome.trainable,
        examples=len(plan.dataset.train),
        data_files=[file.name for file in plan.dataset.files],
        report={key: value for key, value in asdict(progress.report).items() if value not in (None, "")},
    )
    return True


def check_registry(options: TuningOptions, image: ImageReference | None) -> None:
    """Check before training that the adapter can be pushed.

    Raises:
        PushError: the registry refuses the push or cannot be reached; nothing was trained.
    """
    if image is None:
        return
    try:
        check_push(image, docker_configs=_docker_configs(options), plain_http=options.plain_http)
    except RegistryError as error:
        raise PushError(f"the adapter could not be pushed: {error}; nothing was trained") from error
    log.info("the registry accepts a push to %s", image)


def _push_with_patience(
    options: TuningOptions, plan: Plan, image: ImageReference, progress: Progress, stop: threading.Event
) -> bool:
    """Push, and retry for `push_retry_seconds`; False if it was asked to stop before that.

    The registry accepted a push before the training, so what fails now can often be repaired (a token that
    expired, a quota, a registry that is down). Credentials are read anew each time: a Secret that is repaired
    reaches a running container, and the adapter of a container that has ended may be gone with its volume.
    """
    started, pause = time.monotonic(), FIRST_PUSH_PAUSE_SECONDS
    while True:
        progress.phase("pushing", str(image))
        try:
            _push(options, plan, image)
            return True
        except (RegistryError, ConfigurationError) as error:
            left = options.push_retry_seconds - (time.monotonic() - started)
            if left <= 0:
                raise PushError(
                    f"cannot push the adapter: {error}; it is in {plan.output} for as long as that volume exists: "
                    f"set tuning.output.volumeSource to keep it"
                ) from error
            log.warning("cannot push the adapter: %s; it is in %s; trying again for %.0f s", error, plan.output, left)
            progress.phase("pushing", f"{error}; trying again")
        if stop.wait(min(pause, left)):
            return False
        pause = min(pause * 2, LONGEST_PUSH_PAUSE_SECONDS)


def _push(options: TuningOptions, plan: Plan, image: ImageReference) -> None:
    annotations = {"sh.kaito.model.name": options.model_name or Path(plan.source).name}
    digest = push_adapter(
        plan.output, image, docker_configs=_docker_configs(options), plain_http=options.plain_http,
        annotations=annotations,
    )  # fmt: skip
    log.info("pushed %s@%s", image, digest)


def _docker_configs(options: TuningOptions) -> list[Path]:
    return [options.docker_config] if options.docker_config else []
