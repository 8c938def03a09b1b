"""Recognizes text that its author has formatted for a chat template.

`/chat` and the tuning job apply the chat template to a bare prompt only, by the same rule, so that an adapter sees in
use what it saw in training.
"""

import re
from typing import Final

_MARKS: Final = re.compile(r"<\|[^|<>]{1,40}\|>|\[/?INST\]|<(?:start|end)_of_turn>|</?s>|<\uff5c")
"""Marks of the chat templates of known model families."""


def has_template_marks(text: str) -> bool:
    """Returns whether the text contains a mark of a chat template."""
    return _MARKS.search(text) is not None
