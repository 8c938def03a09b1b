"""Inspects values of parsed JSON and YAML.

The predicates narrow types for the type checkers, which cannot infer the key type from `isinstance(value, dict)`.
`abbreviate` formats a client's value for an error message.
"""

import math
from typing import Final

from kaito_oci.json_values import is_list, is_object

__all__ = ["abbreviate", "is_list", "is_object"]

_ABBREVIATED_CHARACTERS: Final = 80
_ABBREVIATED_ITEMS: Final = 8
_EXACT_INTEGERS_BELOW: Final = 10**40
"""Python converts integers of at most 4300 digits to text (`sys.set_int_max_str_digits`); larger ones raise."""


def abbreviate(value: object) -> str:
    """Formats a value for an error message in at most 80 characters; works for integers of any size."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _EXACT_INTEGERS_BELOW:
        return f"a number of about {math.log10(abs(value)):.0f} digits"
    try:
        if is_list(value):
            text = f"[{', '.join(abbreviate(item) for item in value[:_ABBREVIATED_ITEMS])}]"
        else:
            text = repr(value)
    except ValueError:  # an integer beyond Python's conversion limit, nested in an object
        text = f"a value of type {type(value).__name__}"
    if len(text) <= _ABBREVIATED_CHARACTERS:
        return text
    return text[: _ABBREVIATED_CHARACTERS - 3] + "..."
