"""Reads config.json as the engine does.

A multimodal model has the language model in a nested object. A field may have another name (`n_layer` for
`num_hidden_layers`), and a field that is missing has the default of the configuration class in transformers. Both are
read from `data/config_defaults.json`. A field that is null has no value, also if the class has a default.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final, cast, final

from kaito.api.json_values import json_list, json_object
from kaito.models.facts.errors import NotAModel

LARGEST: Final = 2**53
"""Larger numbers are not exact in JSON."""

_NESTED: Final = ("text_config", "llm_config", "language_config", "thinker_config", "language_model_config")
"""Fields with the language model of a multimodal model; vLLM reads the first of them."""

_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("n_head_kv", "num_kv_heads", "n_kv_heads", "multi_query_group_num", "num_attention_groups"),
    "head_dim": ("attention_head_dim", "hidden_size_per_head", "kv_channels"),
    "intermediate_size": ("n_inner", "ffn_dim", "hidden_dim", "ffn_hidden_size"),
    "vocab_size": ("padded_vocab_size",),
}
"""Names in configurations whose class is in the repository, in addition to those of transformers."""

_SAME_CLASS: Final[Mapping[str, str]] = {"kimi_k2": "deepseek_v3", "RefinedWeb": "falcon", "RefinedWebModel": "falcon"}
"""Model types that the engine reads with the class of another one."""


@cache
def _classes() -> Mapping[str, Any]:
    text = resources.files("kaito.models").joinpath("data", "config_defaults.json").read_text(encoding="utf-8")
    return json_object(json_object(json.loads(text)).get("types"))


@final
@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of a configuration, by the names of transformers.

    Every reader raises `NotAModel` for a value of another type.
    """

    values: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def raw(self, name: str) -> Any:
        """Returns the value, else the default of the class; None if there is neither."""
        for each in self._names(name):
            if each in self.values:
                return self.values[each]
        return self.defaults.get(name)

    def has(self, name: str) -> bool:
        """Whether config.json itself contains a value."""
        return any(self.values.get(each) is not None for each in self._names(name))

    def _names(self, name: str) -> Iterator[str]:
        yield name
        if name in self.aliases:
            yield self.aliases[name]
        yield from _ALIASES.get(name, ())

    def integer(self, *names: str, default: int = 0) -> int:
        """Returns the first of these fields that has a value, which must be a whole number that is not negative.

        Raises:
            NotAModel: it is another value.
        """
        for name in names:
            value = self.raw(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > LARGEST:
                raise NotAModel(f"{name} in config.json is {_short(value)}, not a number")
            if value < 0 or int(value) != value:
                raise NotAModel(f"{name} in config.json is {_short(value)}, not a whole number of at least 0")
            return int(value)
        return default

    def required(self, *names: str) -> int:
        """Returns the first of these fields that has a value, at least 1.

        Raises:
            NotAModel: none has a value, or it is not a positive whole number.
        """
        found = self.integer(*names)
        if found < 1:
            raise NotAModel(f"config.json has no {names[0]}")
        return found

    def number(self, name: str, default: float = 0.0) -> float:
        """Returns a number.

        Raises:
            NotAModel: it is another value, or not finite.
        """
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
            raise NotAModel(f"{name} in config.json is {_short(value)}, not a number")
        return float(value)

    def text(self, name: str) -> str:
        """Returns a text; empty if the field has no value or another type."""
        value = self.raw(name)
        return value if isinstance(value, str) else ""

    def flag(self, name: str) -> bool:
        """Whether the field is true."""
        return self.raw(name) is True

    def items(self, name: str) -> Sequence[Any]:
        """Returns a list; empty if the field has no value or another type."""
        return json_list(self.raw(name))


@final
@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """A config.json."""

    root: Mapping[str, Any]
    text: Fields
    """The language model."""
    model_type: str
    """Type of the language model; empty if config.json names none."""

    @property
    def architecture(self) -> str:
        """The first of `architectures`; empty if there is none."""
        names = json_list(self.root.get("architectures"))
        return names[0] if names and isinstance(names[0], str) else ""

    @property
    def root_type(self) -> str:
        """Type of the whole model."""
        value = self.root.get("model_type")
        return value if isinstance(value, str) else ""


def parse_config(content: bytes | str) -> dict[str, Any]:
    """Parses config.json; NaN and Infinity are accepted, as by Python.

    Raises:
        NotAModel: it is not a JSON object.
    """
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotAModel(f"has a config.json that is not JSON: {_short(error)}") from error
    if not isinstance(document, dict):
        raise NotAModel("has a config.json that is not a JSON object")
    return cast("dict[str, Any]", document)


def read_document(config: Mapping[str, Any]) -> ConfigDocument:
    """Returns the configuration with its language model."""
    text = _language_model(config)
    kind = text.get("model_type") or config.get("model_type")
    model_type = kind if isinstance(kind, str) else ""
    known = json_object(_classes().get(_SAME_CLASS.get(model_type, model_type)))
    aliases = {name: each for name, each in json_object(known.get("aliases")).items() if isinstance(each, str)}
    return ConfigDocument(config, Fields(text, aliases, json_object(known.get("defaults"))), model_type)


def _language_model(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the language model; what the nested object lacks is taken from the object around it."""
    for name in _NESTED:
        nested = json_object(config.get(name))
        if nested:
            return {**{key: config[key] for key in _INHERITED if key in config}, **_language_model(nested)}
    return config


_INHERITED: Final = frozenset({"model_type", "quantization_config", "tie_word_embeddings"})
"""Fields of the object around the language model that the language model has, too, if it does not set them."""


def _short(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
