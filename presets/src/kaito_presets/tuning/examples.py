"""From examples to tokens and labels: what of each example the model is to learn.

Called by `train`. Only answers are learned: the completion of a prompt, the assistant's turns of a
conversation; plain text is learned whole. Works with any tokenizer object of transformers; imports none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kaito_presets.errors import DataError
from kaito_presets.tuning.dataset import Example, Turn

IGNORED: Final = -100
"""Label of a token that is read but not learned (torch's cross entropy)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example for the model."""

    input_ids: list[int]
    labels: list[int]


def tokenize(tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[Tokens]:
    """Token ids and labels of every example that has something to learn.

    Raises:
        DataError: none has, or conversations meet a tokenizer without a chat template.
    """
    if examples and examples[0].turns and not tokenizer.chat_template:
        raise DataError(
            "the data holds conversations but the tokenizer has no chat template; set ModelConfig.chat_template "
            "or map the data with context_column and response_column"
        )
    tokenized = [_tokens(tokenizer, example, max_length) for example in examples]
    useful = [tokens for tokens in tokenized if any(label != IGNORED for label in tokens.labels)]
    if examples and not useful:
        raise DataError(f"no example has anything to learn within max_length {max_length}")
    return useful


def _tokens(tokenizer: Any, example: Example, max_length: int) -> Tokens:
    tokens = _conversation(tokenizer, example.turns) if example.turns else _completion(tokenizer, example)
    return Tokens(tokens.input_ids[:max_length], tokens.labels[:max_length])


def _completion(tokenizer: Any, example: Example) -> Tokens:
    prompt: list[int] = tokenizer(example.prompt)["input_ids"] if example.prompt else []
    whole_text = example.prompt + example.completion
    whole: list[int] = tokenizer(whole_text)["input_ids"]
    if whole[: len(prompt)] != prompt:
        # The tokenizer merges across the seam; join the parts, as generation starts from the prompt's own tokens.
        whole = prompt + tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    if end is not None and whole[-1:] != [end]:
        whole = [*whole, end]
    return Tokens(whole, [IGNORED] * len(prompt) + whole[len(prompt) :])


def _conversation(tokenizer: Any, turns: Sequence[Turn]) -> Tokens:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
        spans = [
            _answer_span(tokenizer, messages, text, index)
            for index, turn in enumerate(turns)
            if turn.role == "assistant"
        ]
    except Exception as error:  # templates raise what they like
        raise DataError(f"the chat template refuses a conversation: {error}") from error
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    learned = [any(begin <= start < stop <= end for begin, end in spans) for start, stop in encoded["offset_mapping"]]
    ids: list[int] = encoded["input_ids"]
    return Tokens(ids, [token if keep else IGNORED for token, keep in zip(ids, learned, strict=True)])


def _answer_span(tokenizer: Any, messages: list[dict[str, str]], text: str, index: int) -> tuple[int, int]:
    """Where the answer number `index`, with its end-of-turn token, stands in the text of the whole
    conversation."""
    before: str = tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
    through: str = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
    if not text.startswith(before):
        return 0, len(text)  # a template that rewrites the past: learn all of it
    last = index == len(messages) - 1
    return len(before), len(text) if last else _common_length(text, through)


def _common_length(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
