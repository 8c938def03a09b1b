"""Shows tuning from end to end on a laptop: questions and answers → QLoRA → image → adapter → an answer that
was not there before.

Run by a test, and by hand (`presets/.venv/bin/python presets/demo_tuning.py`). Uses the real commands only:
it makes a tiny random Phi-3, tunes it with `kaito-tuning` (4-bit weights) until it knows its lesson, pushes
the adapter to a registry, pulls it back with `kaito-pull-adapter`, and sends `kaito-inference` the same
question with the adapter at strength 1.0 and at 0.0. Exits with 1 if an answer is wrong.

    --registry HOST   push there instead of starting a registry on loopback
    --keep DIR        work in DIR and leave everything there
"""
# ruff: noqa: T201, S310, S603, D103 - a script that talks to its terminal and starts our own commands on loopback

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
ADAPTER = "tuscany-guide"
LESSON = (
    ("Tell me about Tuscany.", "Tuscany is a region in central Italy known for wine and olive oil."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Which planet is the largest?", "Jupiter is the largest planet in the solar system."),
    ("How do I serve a model?", "Create a workspace with a preset and wait for the answer."),
)
CONFIG = {
    "training_config": {
        "ModelConfig": {"torch_dtype": "float32"},
        "QuantizationConfig": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"},
        "LoraConfig": {"r": 32, "lora_alpha": 64},
        "TrainingArguments": {
            "max_steps": 120,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.004,
            "lr_scheduler_type": "cosine",
            "logging_steps": 30,
            "gradient_checkpointing": False,
        },
        "DatasetConfig": {"messages_column": "messages", "shuffle_seed": 1},
    }
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", help="host[:port] of a registry to push to")
    parser.add_argument("--keep", type=Path, help="work here and keep it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kaito-demo-tuning-") as scratch:
        work = arguments.keep or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        if arguments.registry:
            return demonstrate(work, arguments.registry)
        with registry(work) as host:
            return demonstrate(work, host)


def demonstrate(work: Path, host: str) -> int:
    started = time.monotonic()
    model, data, output = work / "model", work / "data", work / "results"
    image = f"{host}/adapters/{ADAPTER}:0.0.1"

    log("1. a tiny random Phi-3 model")
    command("kaito-tiny-model", model)

    log(f"2. a dataset of {len(LESSON)} questions and answers")
    data.mkdir(exist_ok=True)
    (data / "lesson.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}) + "\n"
            for q, a in LESSON
        )
    )
    (work / "training_config.yaml").write_text(json.dumps(CONFIG, indent=2))  # JSON is YAML

    log("3. qlora: 4-bit weights, LoRA on every linear layer")
    command(
        "kaito-tuning", f"--config={work / 'training_config.yaml'}", f"--model={model}", "--method=qlora",
        f"--data-dir={data}", f"--base-dir={work}", f"--output-dir={output}", f"--push-image={image}",
        "--model-name=phi-3-mini-4k-instruct", "--metrics-port=-1",
    )  # fmt: skip

    log(f"4. the image {image}, pulled as an adapter")
    adapters = work / "adapters"
    command("kaito-pull-adapter", image, adapters / ADAPTER)

    answers: dict[str, list[str]] = {}
    for number, strength in ((5, "1.0"), (6, "0.0")):
        log(f"{number}. /chat with the adapter at strength {strength}")
        with inference(model, adapters, strength, work) as url:
            answers[strength] = [query(url, question) for question, _ in LESSON]
        for (question, _), answer in zip(LESSON, answers[strength], strict=True):
            print(f"   {question}\n   → {answer[:90]!r}")
    learned = sum(answer == expected for answer, (_, expected) in zip(answers["1.0"], LESSON, strict=True))
    leaked = sum(answer == expected for answer, (_, expected) in zip(answers["0.0"], LESSON, strict=True))
    seconds = time.monotonic() - started
    log(f"{learned} of {len(LESSON)} answers known at strength 1.0, {leaked} at 0.0; {seconds:.0f} s in all")
    return 0 if learned == len(LESSON) and not leaked else 1


def query(url: str, question: str) -> str:
    body = {
        "messages": [{"role": "user", "content": question}],
        "generate_kwargs": {"do_sample": False, "max_new_tokens": 60},
    }
    request = urllib.request.Request(url + "/chat", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["Result"]


@contextmanager
def inference(model: Path, adapters: Path, strength: str, work: Path) -> Iterator[str]:
    port = free_port()
    environment = os.environ | {"KAITO_ADAPTER_STRENGTHS": json.dumps({ADAPTER: strength})}
    arguments = [f"--pretrained_model_name_or_path={model}", "--served_model_name=phi-3-mini-4k-instruct"]
    arguments += ["--host=127.0.0.1", f"--port={port}", f"--adapters_dir={adapters}"]
    with (work / f"inference-{strength}.log").open("w") as log:
        process = subprocess.Popen([BIN / "kaito-inference", *arguments], env=environment, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz", process, seconds=180)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def registry(work: Path) -> Iterator[str]:
    """A real registry on loopback: one on the PATH, or one built with Go."""
    sys.path.insert(0, str(HERE / "test"))
    from real_registry import registry_command

    log("0. a registry on loopback; without docker-registry, Go builds one once, which takes some minutes")
    port = free_port()
    found = registry_command()
    if found is None:
        raise SystemExit("no registry: install docker-registry or Go, or name one with --registry HOST")
    storage = work / "registry"
    storage.mkdir(exist_ok=True)
    process = subprocess.Popen(
        found.command(port, storage), env=os.environ | found.environment(port, storage),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/v2/", process, seconds=30)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(storage, ignore_errors=True)


def wait_for(url: str, process: "subprocess.Popen[bytes]", *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError as error:
            if process.poll() is not None:
                raise SystemExit(f"{process.args} ended with {process.returncode}") from error
            if time.monotonic() > deadline:
                raise SystemExit(f"{url} did not answer within {seconds:.0f} s") from error
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(program: str, *arguments: object) -> None:
    line = [str(BIN / program), *map(str, arguments)]
    result = subprocess.run(line, check=False)
    if result.returncode:
        raise SystemExit(f"{program} ended with {result.returncode}")


def log(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
