"""Options of the transformers server: its flags, and the keys of the `transformers:` section."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, model_validator

from kaito_config.schema import StrictModel

CombinationType = Literal[
    "cat", "svd", "linear", "ties", "ties_svd", "dare_ties", "dare_linear", "dare_ties_svd", "dare_linear_svd",
    "magnitude_prune", "magnitude_prune_svd",
]  # fmt: skip


ToolCallParser = Literal["auto", "none", "hermes", "llama3_json", "mistral", "phi4_mini_json", "qwen3_coder"]


class InferenceOptions(StrictModel):
    """Serve a model directory or a Hugging Face model over HTTP."""

    # The model.
    pretrained_model_name_or_path: str = Field(
        default="/workspace/tfs/weights", description="model directory (also a mounted image layer) or Hugging Face id"
    )
    served_model_name: str | None = Field(
        default=None, description="name in the OpenAI routes; default: the model path"
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a Hugging Face id")
    allow_remote_files: bool = Field(default=False, description="download missing files (token: HF_TOKEN)")
    trust_remote_code: bool = Field(default=False, description="run Python code of the model repository")
    force_download: bool = Field(default=False, description="download files again that are in the cache")
    cache_dir: str | None = Field(default=None, description="download cache")
    torch_dtype: str | None = Field(
        default=None, description="auto, float32, float16 or bfloat16; default: auto, the type of the checkpoint"
    )
    device_map: str = Field(default="auto", description="auto, cpu or cuda; auto spreads layers over all GPUs")
    load_in_4bit: bool = Field(default=False, description="quantize the weights to 4 bits at load (bitsandbytes)")
    load_in_8bit: bool = Field(default=False, description="quantize the weights to 8 bits at load (bitsandbytes)")
    chat_template: str | None = Field(
        default=None, description="file, or the template itself if it contains '{' or a line break"
    )
    tool_call_parser: ToolCallParser = Field(
        default="auto", description="format of the model's tool calls; auto recognizes it by the chat template"
    )
    pipeline: Literal["text-generation", "conversational"] = Field(
        default="text-generation",
        description="default input of /chat: a prompt, or messages for conversational; both are always accepted",
    )
    # Adapters.
    adapters_dir: Path = Field(
        default=Path("/mnt/adapter"), description="directory of the adapters, one directory each"
    )
    combination_type: CombinationType = Field(
        default="cat", description="how PEFT combines several adapters; cat is the exact weighted sum"
    )
    # The server.
    host: str = Field(default="0.0.0.0", description="address to listen on")  # noqa: S104 - a server in a pod
    port: int = Field(default=5000, ge=0, le=65535, description="port to listen on; 0 selects a free port")
    max_batch_size: int = Field(default=32, ge=1, le=1024, description="sequences generated at the same time")
    max_queue_size: int = Field(default=128, ge=0, description="sequences that may wait; more are rejected with 429")
    max_model_len: int | None = Field(
        default=None, ge=16, description="most tokens of prompt and completion; default: what model and memory allow"
    )
    enable_prefix_caching: bool = Field(
        default=True, description="keep keys and values of prompts, so that a common prefix is computed once"
    )
    max_request_bytes: int = Field(
        default=4 * 2**20, ge=1024, description="larger request bodies are rejected with 413"
    )
    drain_seconds: float = Field(default=25.0, ge=0, description="time for running requests after SIGTERM")
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 selects the fastest number at start-up")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="minimum log level")
    config: Path | None = Field(
        default=None, description="inference_config.yaml; its transformers: section overrides these flags"
    )
    dry_run: bool = Field(default=False, description="print the resolved plan as JSON and exit")

    @model_validator(mode="after")
    def _one_width(self) -> "InferenceOptions":
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other")
        return self

    @property
    def name(self) -> str:
        """Name of the model in the OpenAI routes."""
        return self.served_model_name or self.pretrained_model_name_or_path


DEVICE_MAPS: Final = frozenset({"auto", "balanced", "balanced_low_0", "sequential", "cpu", "cuda"})
"""Values of `device_map` in a file: strategies of Accelerate, or one device."""

RESERVED: Final = {
    "adapters_dir": "inference.adapters lists the adapters",
    "config": "a configuration file cannot name another one",
    "dry_run": "the server would exit at once",
    "host": "probes and the Service reach the server at the pod's address",
    "port": "probes and the Service use port 5000",
    "pretrained_model_name_or_path": "the preset determines it, and the node is sized for it",
}
"""Flags that a file must not set, each with the reason: the pod depends on them."""
