"""Runs lm-eval on small tasks of this repository, and compares log likelihoods, completions and scores of two servers.

The tasks (`tasks/`) cover the request types of lm-eval: log likelihoods of choices and of whole texts, which are read
from echoed prompts, and generation with stop strings, by text and by chat completions.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hack.clients.comparison import TOLERANCE, differences, is_list
from hack.clients.environments import lm_eval
from hack.clients.servers import CONTEXT_TOKENS, Server, environment
from hack.models.vllm_cpu import ROOT

TASKS: Final = ROOT / "hack" / "clients" / "tasks"
RUNS: Final[Mapping[str, tuple[str, str, str]]] = {
    "completions": ("local-completions", "/v1/completions", "kaito_choices,kaito_answers,kaito_texts"),
    "chat": ("local-chat-completions", "/v1/chat/completions", "kaito_answers"),
}
RUN_SECONDS: Final = 2 * 3600
SCORE_TOLERANCE: Final = 1e-4
"""Relative difference of perplexities, which are exponentials of sums of log likelihoods."""


def evaluate(server: Server, directory: Path) -> None:
    """Runs all tasks; lm-eval writes scores and samples below `directory`, and a run that has them is not repeated."""
    for name, (kind, path, tasks) in RUNS.items():
        if _is_done(directory, server.name, name):
            continue
        arguments = f"model={server.model},base_url={server.url}{path},num_concurrent=4,max_length={CONTEXT_TOKENS}"
        if name == "completions":
            arguments += f",tokenizer={server.model},tokenizer_backend=huggingface"
        command = [
            "nice", "-n", "5", str(lm_eval()), "run", "--model", kind, "--model_args", arguments,
            "--include_path", str(TASKS), "--tasks", tasks, "--log_samples",
            "--output_path", str(directory / server.name / name),
        ]  # fmt: skip
        if name == "chat":
            command.append("--apply_chat_template")
        hub = environment(HF_DATASETS_OFFLINE="1", HF_HOME=str(directory / "hub"))
        with (directory / f"lm-eval-{server.name}-{name}.log").open("wb") as log:
            subprocess.run(command, cwd=ROOT, env=hub, stdout=log, stderr=log, check=True, timeout=RUN_SECONDS)


def is_done(directory: Path, server: str) -> bool:
    """Whether the directory has the results of all runs against a server."""
    return all(_is_done(directory, server, name) for name in RUNS)


def _is_done(directory: Path, server: str, name: str) -> bool:
    """Whether lm-eval has ended: it writes the scores last."""
    return any((directory / server / name).rglob("results_*.json"))


def scores(directory: Path, server: str) -> dict[str, float]:
    """Returns the scores of a server by run, task and metric."""
    found: dict[str, float] = {}
    for name in RUNS:
        for file in (directory / server / name).rglob("results_*.json"):
            for task, metrics in json.loads(file.read_text())["results"].items():
                for metric, value in metrics.items():
                    if isinstance(value, float | int) and "stderr" not in metric and "," in metric:
                        found[f"{name} {task} {metric.partition(',')[0]}"] = value
    return found


def compare(directory: Path) -> tuple[list[str], float]:
    """Returns the differences of the servers, and the largest difference of a log likelihood.

    Raises:
        SystemExit: the runs have no samples, or not the same ones.
    """
    found: list[str] = []
    worst = 0.0
    for name in RUNS:
        ours, theirs = (dict(_samples(directory / server / name)) for server in ("ours", "vllm"))
        if not ours or ours.keys() != theirs.keys():
            raise SystemExit(f"{name}: {len(ours)} and {len(theirs)} samples, which are not the same ones")
        for key in sorted(ours):
            found += [f"{name} {key}{difference}" for difference in differences(ours[key], theirs[key])]
            worst = max(worst, *_distances(ours[key], theirs[key]))
    ours_scores, reference_scores = scores(directory, "ours"), scores(directory, "vllm")
    found += [
        f"{name}: {ours_scores.get(name)} instead of {value}"
        for name, value in reference_scores.items()
        if abs(ours_scores.get(name, float("inf")) - value) > SCORE_TOLERANCE * abs(value)
    ]
    return found, worst


def _samples(directory: Path) -> Iterator[tuple[str, Any]]:
    for file in directory.rglob("samples_*.jsonl"):
        task = file.name.removeprefix("samples_").rpartition("_")[0]
        for line in file.read_text().splitlines():
            sample = json.loads(line)
            yield f"{task} {sample['doc_id']}", _numbers(sample["resps"])


def _numbers(value: Any) -> Any:
    """Converts log likelihoods, which lm-eval writes as text, to numbers."""
    if is_list(value):
        return [_numbers(item) for item in value]
    try:
        return float(value)
    except ValueError:
        return value


def _distances(ours: Any, theirs: Any) -> Iterator[float]:
    yield 0.0
    if is_list(ours) and is_list(theirs):
        for one, other in zip(ours, theirs, strict=False):
            yield from _distances(one, other)
    elif isinstance(ours, float) and isinstance(theirs, float):
        yield abs(ours - theirs)


def report(directory: Path) -> int:
    """Prints scores and differences; returns the number of differences."""
    found, worst = compare(directory)
    ours, theirs = scores(directory, "ours"), scores(directory, "vllm")
    print("| task and metric | ours | vLLM |\n|---|---|---|")
    for name, value in theirs.items():
        print(f"| {name} | {ours.get(name):.6g} | {value:.6g} |")
    print(f"largest difference of a log likelihood: {worst:.2g} (allowed: {TOLERANCE})")
    for difference in found:
        print(difference)
    return len(found)
