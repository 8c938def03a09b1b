"""Maps examples to token ids and labels.

Called by `train`. Only answers are learned: the completion of a prompt, the assistant's turns of a
conversation; plain text is learned whole. A prompt with its completion is a conversation of two turns if the model has
a chat template, because the chat routes use the template as well; an adapter that was trained on plain text changes
their answers little. Works with any tokenizer object of transformers; imports none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kaito_presets.errors import ConfigurationError, DataError
from kaito_presets.serving.template_marks import has_template_marks
from kaito_presets.tuning.dataset import Example, Turn

IGNORED: Final = -100
"""Label of a token that is excluded from the loss (`ignore_index` of torch's cross entropy)."""


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Token ids and labels of one example."""

    input_ids: list[int]
    labels: list[int]


def as_conversations(
    examples: Sequence[Example], *, has_template: bool, apply_chat_template: bool | None
) -> list[Example]:
    """Returns the examples with prompts and completions as conversations, where the chat template applies.

    Args:
        examples: the examples of the data set.
        has_template: whether the model has a chat template.
        apply_chat_template: the configured value. None: as for a prompt of `/chat`, if the model has a template and the
            prompt contains no marks of one.

    Raises:
        ConfigurationError: the template is required and the model has none.
    """
    if apply_chat_template and not has_template:
        raise ConfigurationError(
            "DatasetConfig.apply_chat_template: the tokenizer has no chat template; set ModelConfig.chat_template"
        )
    if apply_chat_template is False or not has_template:
        return list(examples)
    return [
        _as_conversation(example)
        if example.prompt and (apply_chat_template or not has_template_marks(example.prompt))
        else example
        for example in examples
    ]


def _as_conversation(example: Example) -> Example:
    # Data for completions starts answers with a space, which separates them from the prompt.
    answer = example.completion.removeprefix(" ")
    return Example(turns=(Turn("user", example.prompt), Turn("assistant", answer)))


def tokenize(tokenizer: Any, examples: Sequence[Example], max_length: int) -> list[TokenizedExample]:
    """Tokenizes the examples; drops those without a label within `max_length` tokens.

    Raises:
        DataError: no example is left, or an example is a conversation and the tokenizer has no chat template.
    """
    if any(example.turns for example in examples) and not tokenizer.chat_template:
        raise DataError(
            "the data contains conversations, but the tokenizer has no chat template; set ModelConfig.chat_template, "
            "or map the data with context_column and response_column"
        )
    tokenized = [_tokens(tokenizer, example, max_length) for example in examples]
    useful = [tokens for tokens in tokenized if any(label != IGNORED for label in tokens.labels)]
    if examples and not useful:
        raise DataError(f"no example has a token to learn within max_length {max_length}")
    return useful


def _tokens(tokenizer: Any, example: Example, max_length: int) -> TokenizedExample:
    tokens = _conversation(tokenizer, example.turns) if example.turns else _completion(tokenizer, example)
    return TokenizedExample(tokens.input_ids[:max_length], tokens.labels[:max_length])


def _completion(tokenizer: Any, example: Example) -> TokenizedExample:
    prompt: list[int] = tokenizer(example.prompt)["input_ids"] if example.prompt else []
    text = example.prompt + example.completion
    tokens: list[int] = tokenizer(text)["input_ids"]
    if tokens[: len(prompt)] != prompt:
        # The tokenizer merges characters of prompt and completion into one token. Inference starts from the tokens of
        # the prompt, so the parts are tokenized separately.
        tokens = prompt + tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    if end is not None and tokens[-1:] != [end]:
        tokens = [*tokens, end]
    return TokenizedExample(tokens, [IGNORED] * len(prompt) + tokens[len(prompt) :])


def _conversation(tokenizer: Any, turns: Sequence[Turn]) -> TokenizedExample:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
        spans = [
            _message_span(tokenizer, messages, text, index)
            for index, turn in enumerate(turns)
            if turn.role == "assistant"
        ]
    except Exception as error:  # a template may raise any exception
        raise DataError(f"the chat template rejects a conversation: {error}") from error
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    learned = [any(begin <= start < stop <= end for begin, end in spans) for start, stop in encoded["offset_mapping"]]
    ids: list[int] = encoded["input_ids"]
    return TokenizedExample(
        ids, [token if is_learned else IGNORED for token, is_learned in zip(ids, learned, strict=True)]
    )


def _message_span(tokenizer: Any, messages: list[dict[str, str]], text: str, index: int) -> tuple[int, int]:
    """Returns the span of message `index`, with its end-of-turn token, in the rendered conversation.

    The template is rendered up to the message and through it, because templates do not report positions.
    """
    before: str = tokenizer.apply_chat_template(messages[:index], tokenize=False, add_generation_prompt=True)
    through: str = tokenizer.apply_chat_template(messages[: index + 1], tokenize=False)
    if not text.startswith(before):
        return 0, len(text)  # the template changes earlier messages, so the whole text is learned
    last = index == len(messages) - 1
    return len(before), len(text) if last else _common_length(text, through)


def _common_length(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
