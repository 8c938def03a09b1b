"""Finds the part of a mark with which a streamed text ends, such as a stop string or the mark of a tool call.

`detokenizer` and `tool_calls` hold that part back until more text decides whether it is the mark.
"""


def overlap(text: str, mark: str) -> int:
    """Returns the length of the longest proper prefix of `mark` that `text` ends with."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
