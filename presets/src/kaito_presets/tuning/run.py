"""Runs a tuning job: data, checks, training (resumed after an interruption), metadata, push.

Called by `main`. Guarantees:

* Everything that can be checked without a model is checked first. This includes a trial push, so that hours of GPU time
  are not spent on an adapter that cannot be stored.
* A complete adapter is not trained again; a restart pushes it.
* A push that fails after the training is retried for `push_retry_seconds`, because the adapter may be lost with the
  container.
"""

import logging
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from kaito_config.addresses import url_problem
from kaito_config.image_references import ImageReference
from kaito_oci.adapter_image import check_push, push_adapter
from kaito_oci.reference import parse_reference

from kaito_presets.environment import check_readable, check_temporary_directory
from kaito_presets.errors import ConfigurationError, PushError, RegistryError
from kaito_presets.tuning.config import TrainingConfig
from kaito_presets.tuning.dataset import Dataset, load_dataset
from kaito_presets.tuning.download import download_all
from kaito_presets.tuning.options import TuningOptions
from kaito_presets.tuning.progress import Progress
from kaito_presets.tuning.record import (
    claim_output_directory,
    fingerprint,
    is_completed,
    last_checkpoint,
    write_metadata,
)

log = logging.getLogger(__name__)

INITIAL_PUSH_BACKOFF_SECONDS: Final = 10.0
MAX_PUSH_BACKOFF_SECONDS: Final = 60.0
"""Longest time between two pushes. Each push already retries its requests."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run determines without loading the model."""

    source: str
    output: Path
    dataset: Dataset
    image: ImageReference | None


def make_plan(options: TuningOptions, config: TrainingConfig, progress: Progress) -> Plan:
    """Checks the configuration, and downloads and reads the data.

    Raises:
        PresetError: the configuration or the data cannot be used.
    """
    config.bits(options.method)
    source = options.model_source(config)
    check_readable(Path(source))
    output = options.output(config)
    image = parse_reference(options.push_image) if options.push_image else None
    progress.set_phase("data")
    download_all(
        options.data_urls,
        options.data_dir,
        check_url=partial(url_problem, in_cluster=options.allow_in_cluster_data_urls),
    )
    dataset = load_dataset(config.DatasetConfig, options.data_dir, options.base)
    log.info(
        "dataset: %d examples to train, %d to evaluate, as %s, from %s; columns: %s",
        len(dataset.train), len(dataset.evaluate), dataset.shape,
        ", ".join(file.name for file in dataset.files), ", ".join(dataset.columns),
    )  # fmt: skip
    return Plan(source, output, dataset, image)


def run(options: TuningOptions, config: TrainingConfig, progress: Progress, stop: threading.Event) -> bool:
    """Runs the job; returns False if `stop` was set before the end.

    Raises:
        PresetError: the job failed.
    """
    check_temporary_directory()
    plan = make_plan(options, config, progress)
    claim_output_directory(plan.output, fingerprint(config, options.method, plan.source, plan.dataset))
    if is_completed(plan.output):
        log.info("the adapter in %s is complete, training is skipped", plan.output)
    else:
        check_registry(options, plan.image)
        if not _train(options, config, plan, progress, stop):
            return False
    if plan.image and not _push_with_retries(options, plan, plan.image, progress, stop):
        return False
    progress.set_phase("completed", str(plan.image or plan.output))
    return True


def _train(
    options: TuningOptions, config: TrainingConfig, plan: Plan, progress: Progress, stop: threading.Event
) -> bool:
    # The import of torch and transformers takes seconds, and everything before it can fail without them.
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
        log.info("interrupted at step %d; the next start resumes from there", outcome.steps)
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
        examples_in_chat_template=outcome.templated,
        data_files=[file.name for file in plan.dataset.files],
        report={key: value for key, value in asdict(progress.report).items() if value not in (None, "")},
    )
    return True


def check_registry(options: TuningOptions, image: ImageReference | None) -> None:
    """Checks before the training that the adapter can be pushed.

    Raises:
        PushError: the registry rejects the push or cannot be reached.
    """
    if image is None:
        return
    try:
        check_push(image, docker_configs=_docker_configs(options), plain_http=options.plain_http)
    except RegistryError as error:
        raise PushError(f"the adapter could not be pushed: {error}; nothing was trained") from error
    log.info("the registry accepts a push to %s", image)


def _push_with_retries(
    options: TuningOptions, plan: Plan, image: ImageReference, progress: Progress, stop: threading.Event
) -> bool:
    """Pushes the adapter, with retries for `push_retry_seconds`; returns False if `stop` was set.

    The registry accepted a push before the training, so a failure is often repairable: an expired token, a quota, an
    outage. Each attempt reads the credentials again, because the kubelet updates a mounted Secret in a running
    container.

    Raises:
        PushError: the last attempt failed.
    """
    started, backoff = time.monotonic(), INITIAL_PUSH_BACKOFF_SECONDS
    while True:
        progress.set_phase("pushing", str(image))
        try:
            _push(options, plan, image)
            return True
        except (RegistryError, ConfigurationError) as error:
            remaining = options.push_retry_seconds - (time.monotonic() - started)
            if remaining <= 0:
                raise PushError(
                    f"cannot push the adapter: {error}; it is in {plan.output} as long as that volume exists; "
                    "set tuning.output.volumeSource to keep it"
                ) from error
            log.warning("cannot push the adapter: %s; it is in %s; retrying for %.0f s", error, plan.output, remaining)
            progress.set_phase("pushing", f"{error}; retrying")
        if stop.wait(min(backoff, remaining)):
            return False
        backoff = min(backoff * 2, MAX_PUSH_BACKOFF_SECONDS)


def _push(options: TuningOptions, plan: Plan, image: ImageReference) -> None:
    annotations = {"sh.kaito.model.name": options.model_name or Path(plan.source).name}
    digest = push_adapter(
        plan.output, image, docker_configs=_docker_configs(options), plain_http=options.plain_http,
        annotations=annotations,
    )  # fmt: skip
    log.info("pushed %s@%s", image, digest)


def _docker_configs(options: TuningOptions) -> list[Path]:
    return [options.docker_config] if options.docker_config else []
