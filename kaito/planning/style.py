"""What the output of a command can show: colors and block characters on a terminal, plain ASCII elsewhere."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TextIO, final

BAR_WIDTH: Final = 30
"""Characters of a bar that stands for the whole."""

_COLORS: Final[Mapping[str, str]] = {"green": "\033[32m", "yellow": "\033[33m", "red": "\033[31m", "dim": "\033[2m"}
_RESET: Final = "\033[0m"


@final
@dataclass(frozen=True, slots=True)
class Style:
    """What the output can show."""

    colors: bool = False
    blocks: bool = False

    @classmethod
    def of(cls, out: TextIO, environment: Mapping[str, str] = os.environ) -> "Style":
        """Returns the style of a stream: colors and blocks on a terminal, unless NO_COLOR or the encoding forbid it."""
        terminal = out.isatty() and environment.get("TERM", "") != "dumb"
        unicode = (getattr(out, "encoding", "") or "").lower().replace("-", "") == "utf8"
        return cls(colors=terminal and not environment.get("NO_COLOR"), blocks=terminal and unicode)

    def paint(self, text: str, color: str) -> str:
        """Returns the text in a color."""
        return f"{_COLORS[color]}{text}{_RESET}" if self.colors else text

    def bar(self, share: float) -> str:
        """Returns a bar for a share of the whole; a share above 0 has at least one character."""
        filled = max(round(share * BAR_WIDTH), 1) if share > 0 else 0
        return ("█" if self.blocks else "#") * min(filled, BAR_WIDTH)


def terminal_width(out: TextIO, default: int = 100) -> int:
    """Returns the width of the terminal, at least 60; the default for output that is not a terminal."""
    return max(shutil.get_terminal_size((default, 24)).columns, 60) if out.isatty() else default


def duration(seconds: float) -> str:
    """Formats a duration with its two largest units: `45 s`, `12 min 5 s`, `3 h 20 min`, `4 d 2 h`."""
    whole = timedelta(seconds=round(max(seconds, 0.0)))
    hours, rest = divmod(whole.seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [(whole.days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    first = next((index for index, (value, _) in enumerate(parts) if value), 3)
    shown = [f"{value} {unit}" for value, unit in parts[first : first + 2] if value]
    return " ".join(shown) or "0 s"
