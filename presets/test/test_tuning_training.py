"""Real training of a tiny model on CPU: lora and qlora, resuming after a kill, and the adapter in use."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.errors import (
    ConfigurationError,
    DataError,
    InsufficientMemory,
    ModelLoadError,
)
from kaito_presets.inference.options import InferenceOptions
from kaito_presets.serving.adapters import find_adapters
from kaito_presets.tuning.config import TrainingConfig
from kaito_presets.tuning.options import TuningOptions
from kaito_presets.tuning.progress import Progress
from kaito_presets.tuning.run import run

pytestmark = pytest.mark.tuning

LESSON = [{"question": f"What is number {n}?", "answer": f"It is the {w} one."} for n, w in enumerate(["big", "red"])]


def options(folder: Path, model: Path, **values: Any) -> TuningOptions:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / "lesson.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LESSON * 4))
    defaults = {"model": str(model), "data_dir": data, "base_dir": folder, "output_dir": folder / "out"}
    return TuningOptions.model_validate({**defaults, "method": "lora", **values})


def config(**sections: Any) -> TrainingConfig:
    sections.setdefault("ModelConfig", {"torch_dtype": "float32"})
    sections.setdefault("TrainingArguments", {"max_steps": 4, "gradient_checkpointing": False})
    return TrainingConfig.model_validate(sections)


def tune(chosen: TuningOptions, settings: TrainingConfig, progress: Progress | None = None) -> bool:
    return run(chosen, settings, progress or Progress(), threading.Event())


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_trained_adapter_is_loaded_by_the_server(
    tmp_path: Path, tiny_model: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaito_presets.inference.backend.model import open_model
    from kaito_presets.tuning import train as training

    safetensors: Any = importlib.import_module("safetensors")
    kinds: set[str] = set()
    original = training.select_targets

    def spy(model: Any, wanted: Any) -> tuple[str, ...]:
        kinds.update(type(module).__name__ for module in model.modules())
        return original(model, wanted)

    monkeypatch.setattr(training, "select_targets", spy)
    compute = {"QuantizationConfig": {"bnb_4bit_compute_dtype": "float32"}} if method == "qlora" else {}
    progress = Progress()
    assert tune(options(tmp_path, tiny_model, method=method, model_name="phi"), config(**compute), progress)
    assert ("Linear4bit" in kinds) == (method == "qlora")
    out = tmp_path / "out"
    metadata = json.loads((out / "kaito_adapter.json").read_text())
    assert metadata["base_model"] == "phi"
    assert metadata["steps"] == 4
    assert metadata["target_modules"] == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    assert (out / "fine_tuning_completed.txt").is_file()
    with safetensors.safe_open(out / "adapter_model.safetensors", framework="pt") as file:
        names: list[str] = list(file.keys())
    assert len(names) == 4 * 4 * 2
    assert all("lora_" in name for name in names)
    lora = json.loads((out / "adapter_config.json").read_text())
    assert (lora["task_type"], lora["r"]) == ("CAUSAL_LM", 8)
    assert progress.report.phase == "completed"
    assert (progress.report.step, progress.report.total_steps) == (4, 4)
    assert progress.report.loss is not None
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "tuned-one").symlink_to(out)
    model = open_model(
        InferenceOptions(pretrained_model_name_or_path=str(tiny_model), threads=1), find_adapters(folder, {})
    )
    assert model.info.adapters == ("tuned-one",)


def test_finished_run_is_not_repeated_and_another_run_starts_over(tmp_path: Path, tiny_model: Path) -> None:
    chosen = options(tmp_path, tiny_model)
    tune(chosen, config())
    first = (tmp_path / "out" / "kaito_adapter.json").read_text()
    tune(chosen, config())
    assert (tmp_path / "out" / "kaito_adapter.json").read_text() == first
    tune(chosen, config(LoraConfig={"r": 4}))
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize(
    ("sections", "method", "error", "words"),
    [
        ({"LoraConfig": {"target_modules": ["q_proj", "o_proj"]}}, "lora", ModelLoadError, "q_proj match.*qkv_proj"),
        ({"TrainingArguments": {"no_such_key": 1}}, "lora", ConfigurationError, "no_such_key"),
        ({"TrainingArguments": {"push_to_hub": True}}, "lora", ConfigurationError, "push_to_hub"),
        ({"TrainingArguments": {"bf16": True}}, "lora", ConfigurationError, "bf16 needs a GPU"),
        ({"TrainingArguments": {"lr_scheduler_type": "zigzag"}}, "lora", ConfigurationError, "zigzag"),
        ({"ModelConfig": {"torch_dtype": "int3"}}, "lora", ConfigurationError, "int3"),
        ({"QuantizationConfig": {"bnb_4bit_quant_type": "fp4"}}, "qlora", ConfigurationError, "fp4 needs a GPU"),
        ({"TrainingArguments": {"per_device_train_batch_size": 10**9}}, "lora", InsufficientMemory, "GiB are free"),
    ],
)  # fmt: skip
def test_wrong_settings_are_reported(
    tmp_path: Path, tiny_model: Path, sections: dict[str, Any], method: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        tune(options(tmp_path, tiny_model, method=method), config(**sections))


def without_template(model: Path, folder: Path) -> Path:
    bare = folder / "bare"
    bare.mkdir()
    for file in model.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    return bare


def test_conversations_need_a_chat_template(tmp_path: Path, tiny_model: Path) -> None:
    chosen = options(tmp_path, without_template(tiny_model, tmp_path))
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "data" / "lesson.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="no chat template"):
        tune(chosen, config())


def test_only_completions_are_learned(tiny_model: Path) -> None:
    from kaito_presets.tuning.dataset import Example, Turn
    from kaito_presets.tuning.examples import IGNORED, tokenize

    transformers: Any = importlib.import_module("transformers")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tiny_model)
    turns = (Turn("user", "hi"), Turn("assistant", "yes"), Turn("user", "and"), Turn("assistant", "no"))
    examples = [Example(turns=turns), Example("question ", "answer"), Example("", "whole")]
    learned = [
        tokenizer.decode([label for label in tokens.labels if label != IGNORED])
        for tokens in tokenize(tokenizer, examples, 100)
    ]
    assert learned == ["yes<|end|>\nno<|end|>\n<|endoftext|>", "answer<|endoftext|>", "whole<|endoftext|>"]
    with pytest.raises(DataError, match="a token to learn within max_length 3"):
        tokenize(tokenizer, [Example("a long question here ", "answer")], 3)


def test_question_and_answer_are_trained_as_the_chat_routes_ask(tiny_model: Path) -> None:
    """An adapter for an instruct model changed the answers of /v1/chat/completions little: it had seen plain text."""
    from kaito_presets.tuning.dataset import Example
    from kaito_presets.tuning.examples import IGNORED, as_conversations, tokenize

    transformers: Any = importlib.import_module("transformers")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tiny_model)
    [example] = as_conversations([Example("Why?", " So.")], has_template=True, apply_chat_template=None)
    [tokens] = tokenize(tokenizer, [example], 100)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], add_generation_prompt=True, return_dict=False
    )
    assert tokens.input_ids[: len(asked)] == asked
    assert set(tokens.labels[: len(asked)]) == {IGNORED}
    assert tokenizer.decode(tokens.labels[len(asked) :]).startswith("So.<|end|>")


FORMATTED = "<|user|>\nWhy?<|end|>\n<|assistant|>\n"


@pytest.mark.parametrize(
    ("prompt", "template", "configured", "is_conversation"),
    [
        ("Why?", True, None, True),
        ("Why?", True, True, True),
        ("Why?", True, False, False),
        ("Why?", False, None, False),
        ("Why?", False, False, False),
        (FORMATTED, True, None, False),
        (FORMATTED, True, True, True),
        ("", True, None, False),
        ("", True, True, False),
    ],
)
def test_when_a_prompt_is_a_turn(prompt: str, template: bool, configured: bool | None, is_conversation: bool) -> None:
    from kaito_presets.tuning.dataset import Example
    from kaito_presets.tuning.examples import as_conversations

    example = Example(prompt, "So.")
    [shaped] = as_conversations([example], has_template=template, apply_chat_template=configured)
    assert bool(shaped.turns) == is_conversation
    assert shaped == example or is_conversation


def test_adapter_records_how_its_data_was_trained(tmp_path: Path, tiny_model: Path) -> None:
    tune(options(tmp_path, tiny_model), config())
    assert json.loads((tmp_path / "out" / "kaito_adapter.json").read_text())["examples_in_chat_template"] == 8
    tune(options(tmp_path, tiny_model), config(DatasetConfig={"apply_chat_template": False}))
    assert json.loads((tmp_path / "out" / "kaito_adapter.json").read_text())["examples_in_chat_template"] == 0


def test_required_template_that_is_missing_is_reported(tmp_path: Path, tiny_model: Path) -> None:
    chosen = options(tmp_path, without_template(tiny_model, tmp_path))
    with pytest.raises(ConfigurationError, match=r"DatasetConfig\.apply_chat_template.*ModelConfig\.chat_template"):
        tune(chosen, config(DatasetConfig={"apply_chat_template": True}))
    tune(chosen, config())


# As a process.


def start(folder: Path, model: Path, *flags: str, steps: int = 150) -> "subprocess.Popen[str]":
    chosen = options(folder, model)
    settings = {
        "training_config": {
            "ModelConfig": {"torch_dtype": "float32"},
            "TrainingArguments": {"max_steps": steps, "save_steps": 5, "gradient_checkpointing": False},
        }
    }
    (folder / "config.yaml").write_text(json.dumps(settings))
    command = [
        sys.executable, "-m", "kaito_presets.tuning.main", f"--config={folder / 'config.yaml'}", f"--model={model}",
        "--method=lora", f"--data-dir={chosen.data_dir}", f"--base-dir={folder}", f"--output-dir={folder / 'out'}",
        "--metrics-port=-1", *flags,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_checkpoint(folder: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while not list((folder / "out").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_run_resumes(tmp_path: Path, tiny_model: Path, number: signal.Signals) -> None:
    process = start(tmp_path, tiny_model)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _, output = process.communicate(timeout=300)
    assert process.returncode == (-9 if number == signal.SIGKILL else 143), output
    # A kill in the middle of saving leaves a checkpoint without its last file.
    (tmp_path / "out" / "checkpoint-99999").mkdir()
    # The same run, asked for fewer steps than are left would be another run; so finish it with its own number.
    process = start(tmp_path, tiny_model)
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resuming from checkpoint-" in output
    assert not (tmp_path / "out" / "checkpoint-99999").exists()
    assert json.loads((tmp_path / "out" / "kaito_adapter.json").read_text())["steps"] == 150


def test_exit_code_depends_on_the_kind_of_failure(tmp_path: Path, tiny_model: Path) -> None:
    def code(*flags: str, model: Path = tiny_model) -> tuple[int, str]:
        process = start(tmp_path, model, *flags)
        _, output = process.communicate(timeout=300)
        return process.returncode, output.splitlines()[-1]

    assert code("--nonsense=1") == (2, "kaito-tuning: unrecognized arguments: --nonsense=1")
    empty = tmp_path / "empty"
    empty.mkdir()
    status, last = code(f"--data-dir={empty}")
    assert status == 3
    assert "no data file" in last
    status, last = code(model=tmp_path / "absent")
    assert status == 4
    assert "cannot load the tokenizer" in last
    status, last = code("--push-image=NOT A REFERENCE")
    assert status == 2
    assert "not an image reference" in last
