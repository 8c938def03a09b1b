"""The push of a tuning run: asked for before training, retried after it, and the adapter that is not lost."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaito_oci import registry as registry_client
from kaito_presets.errors import PushError
from kaito_presets.tuning import run as tuning_run
from kaito_presets.tuning.config import TrainingConfig
from kaito_presets.tuning.options import TuningOptions
from kaito_presets.tuning.progress import Progress
from scripted_registry import NO_HEADERS, Answer, Scripted, scripted_registry

BASIC = (401, {"WWW-Authenticate": 'Basic realm="r"'})
CHECKED: list[Answer] = [(202, {"Location": "/up/1"}), (204, {})]
"""The registry accepts the upload that is begun and cancelled before training."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(registry_client, "INITIAL_BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(tuning_run, "INITIAL_PUSH_BACKOFF_SECONDS", 0.0)
    with scripted_registry() as address:
        yield address


def options(folder: Path, model: Path, host: str, **values: Any) -> TuningOptions:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / "lesson.jsonl").write_text(json.dumps({"question": "a", "answer": "b"}) + "\n")
    credentials = folder / "docker.json"
    credentials.write_text(json.dumps({"auths": {host: {"auth": "Zm9vOmJhcg=="}}}))
    return TuningOptions.model_validate(
        {
            "model": str(model), "data_dir": data, "base_dir": folder, "output_dir": folder / "out", "method": "lora",
            "push_image": f"{host}/team/adapter:1", "docker_config": credentials, **values,
        }
    )  # fmt: skip


def tune(chosen: TuningOptions, progress: Progress | None = None, stop: threading.Event | None = None) -> bool:
    settings = {
        "ModelConfig": {"torch_dtype": "float32"},
        "TrainingArguments": {"max_steps": 2, "gradient_checkpointing": False},
    }
    return tuning_run.run(
        chosen, TrainingConfig.model_validate(settings), progress or Progress(), stop or threading.Event()
    )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([BASIC, BASIC], "the registry rejects user 'foo'"),
        ([(403, NO_HEADERS)], "the registry rejects user 'foo'"),
        ([(404, NO_HEADERS)], "status 404"),
        ([(503, NO_HEADERS)] * registry_client.MAX_ATTEMPTS, "status 503"),
    ],
)
def test_rejected_trial_push_ends_the_run_before_training(
    tmp_path: Path, host: str, script: list[Answer], words: str
) -> None:
    """Hours of GPU time were spent before the registry was asked."""
    Scripted.script = list(script)
    # The model does not exist: a run that reached it would fail with another error.
    with pytest.raises(PushError, match=f"{words}.*; nothing was trained"):
        tune(options(tmp_path, tmp_path / "absent", host))
    assert {method for method, _, _ in Scripted.seen} == {"POST"}


def test_unreachable_registry_ends_the_run_before_training(tmp_path: Path, host: str) -> None:
    with pytest.raises(PushError, match=r"127\.0\.0\.1:9.*nothing was trained"):
        tune(options(tmp_path, tmp_path / "absent", "127.0.0.1:9"))


@pytest.mark.tuning
def test_failed_push_after_training_is_retried_until_it_succeeds(tmp_path: Path, tiny_model: Path, host: str) -> None:
    progress = Progress()
    # After the check: the first push is refused (a token that has expired), the second is accepted.
    Scripted.script = [*CHECKED, (403, {}), (403, {})]
    assert tune(options(tmp_path, tiny_model, host, push_retry_seconds=60), progress)
    assert progress.report.phase == "completed"
    manifests = [path for method, path, _ in Scripted.seen if method == "PUT" and "/manifests/" in path]
    assert manifests == ["/v2/team/adapter/manifests/1"]


@pytest.mark.tuning
def test_restart_after_a_failed_push_does_not_train_again(tmp_path: Path, tiny_model: Path, host: str) -> None:
    chosen = options(tmp_path, tiny_model, host, push_retry_seconds=0)
    Scripted.script = [*CHECKED, (403, {})]
    with pytest.raises(PushError, match=r"cannot push the adapter: .*; it is in .*out as long as that volume"):
        tune(chosen)
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    trained = (tmp_path / "out" / "kaito_adapter.json").read_text()
    Scripted.script = []
    assert tune(chosen)
    assert (tmp_path / "out" / "kaito_adapter.json").read_text() == trained


@pytest.mark.tuning
def test_stop_ends_the_retries_of_a_push(
    tmp_path: Path, tiny_model: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_run, "INITIAL_PUSH_BACKOFF_SECONDS", 50.0)
    stop = threading.Event()

    progress = Progress()
    report = progress.set_phase

    def set_phase(name: str, message: str = "") -> None:
        report(name, message)
        if "retrying" in message:
            stop.set()

    monkeypatch.setattr(progress, "set_phase", set_phase)
    Scripted.script = [*CHECKED, (403, {})]
    assert not tune(options(tmp_path, tiny_model, host), progress, stop)
