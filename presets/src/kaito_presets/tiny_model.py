"""Writes a tiny random Phi-3 model: the real architecture and tokenizer type in a few megabytes, without a download.

Used by `kaito-tiny-model`, the tests and the local cluster. The directory contains config, safetensors, and a
byte-level BPE tokenizer with Phi-3's special tokens and chat template; it depends on the seed and the library versions
only. The weights are random, so the model generates noise until it is tuned.
"""
# torch and transformers are partly untyped; their unknown values stay inside this module.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from kaito_presets.command_line import parse
from kaito_presets.errors import PresetError

# From the model card of Phi-3: per message `<|role|>\n` + content + `<|end|>\n`, then `<|assistant|>\n`.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
SPECIAL_TOKENS = ("<unk>", "<s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
VOCABULARY_SIZE = 512
CONTEXT_TOKENS = 2048

# A few sentences are enough for merges that resemble words.
CORPUS = (
    "A node joins the cluster and the driver reports its capacity.",
    "The controller waits until the workload is ready and then writes the status.",
    "What is the capital of France? The capital of France is Paris.",
    "Tell me about Tuscany. Tuscany is a region in central Italy known for wine and olive oil.",
    "How do I serve a model on Kubernetes? Create a workspace with a preset and wait for the answer.",
    "Which planet is the largest? Jupiter is the largest planet in the solar system.",
    "The quick brown fox jumps over the lazy dog while the cat sleeps in the warm sun.",
    "People ask questions and the assistant answers them in a clear and friendly way.",
)


class TinyModelOptions(BaseModel, extra="forbid", frozen=True):
    """Write a tiny random model directory."""

    directory: Path = Field(description="where to write", json_schema_extra={"positional": True})
    architecture: Literal["phi3"] = Field(default="phi3", description="model architecture")
    seed: int = Field(default=0, description="seed of the random weights")
    hidden_size: int = Field(
        default=128, ge=64, multiple_of=64, description="hidden size; a multiple of 64, the block size of 4-bit weights"
    )
    layers: int = Field(default=4, ge=1, description="number of decoder layers")
    vocabulary_size: int = Field(
        default=VOCABULARY_SIZE, ge=320, description="size of the embedding; ids beyond the tokenizer's stay unused"
    )
    context: int = Field(default=CONTEXT_TOKENS, ge=128, description="positions the model can attend to")


def write_tiny_model(options: TinyModelOptions) -> int:
    """Writes the model directory; returns the number of parameters."""
    import torch
    from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    tokenizer = _tokenizer(options.context)
    end_of_text = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    end_of_turn = tokenizer.convert_tokens_to_ids("<|end|>")
    config = Phi3Config(
        vocab_size=options.vocabulary_size,
        hidden_size=options.hidden_size,
        intermediate_size=2 * options.hidden_size,
        num_hidden_layers=options.layers,
        num_attention_heads=max(2, options.hidden_size // 64),
        max_position_embeddings=options.context,
        original_max_position_embeddings=options.context,
        bos_token_id=tokenizer.convert_tokens_to_ids("<s>"),
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
        # With the usual 0.02, the logits of such a narrow model are almost equal, and greedy tokens depend on rounding.
        initializer_range=options.hidden_size**-0.5,
        dtype="float32",
    )
    torch.manual_seed(options.seed)
    model = Phi3ForCausalLM(config)
    # The generation config of Phi-3 lists both end tokens: <|end|> of a turn and <|endoftext|> of a document. The other
    # keys are those that `save_pretrained` writes for a generation config that was derived from a model config.
    model.generation_config = GenerationConfig(
        _from_model_config=True,
        bos_token_id=config.bos_token_id,
        eos_token_id=[end_of_text, end_of_turn],
        pad_token_id=end_of_text,
        output_attentions=False,
        output_hidden_states=False,
        use_cache=True,
    )
    # The files are moved into place with config.json last, so that a directory with a config is complete.
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(options.directory / file.name)
    return int(model.num_parameters())


def _tokenizer(context: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 - a vocabulary token, not a secret
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="<|endoftext|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        extra_special_tokens=["<|assistant|>", "<|system|>", "<|end|>", "<|user|>"],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        padding_side="left",
    )


def main() -> int:
    """Runs the `kaito-tiny-model` command; returns the exit code."""
    try:
        options = parse(TinyModelOptions, sys.argv[1:], program="kaito-tiny-model")
        parameters = write_tiny_model(options)
    except PresetError as error:
        print(f"kaito-tiny-model: {error}", file=sys.stderr)  # noqa: T201 - output of a command
        return error.exit_code
    size = sum(file.stat().st_size for file in options.directory.iterdir())
    print(f"{options.directory}: {parameters:,} parameters, {size / 1e6:.1f} MB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
