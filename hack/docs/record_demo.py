"""Runs `kaito demo` in a terminal and writes its output to `docs/assets/demo.svg`.

make record-demo

The picture contains the real output, with long lines cut and paths relative to the repository. It has its own
background, so that it is readable in light and dark themes.
"""

import os
import pty
import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "assets" / "demo.svg"
COLUMNS = 120
LINE_HEIGHT, CHARACTER_WIDTH, MARGIN = 17, 7.25, 16
SGR = re.compile(r"\x1b\[([0-9;]*)m")
COLORS = {"2": "#8b93a7", "31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "36": "#79c0ff"}
FOREGROUND, BACKGROUND = "#e6e9f0", "#161b26"


def record() -> str:
    """Runs the demonstration and returns its output."""
    output = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        output.extend(data)
        return data

    code = os.waitstatus_to_exitcode(pty.spawn([str(ROOT / ".venv" / "bin" / "kaito"), "demo"], read))
    if code:
        raise SystemExit(f"kaito demo ended with exit code {code}")
    return output.decode()


def picture(text: str) -> str:
    """Renders the output as an SVG."""
    lines = [line.rstrip().replace(f"{ROOT}/", "") for line in text.replace("\r", "").splitlines()]
    lines = ["\x1b[36m$ make demo\x1b[0m", *_collapsed(lines)]
    width, height = COLUMNS * CHARACTER_WIDTH + 2 * MARGIN, len(lines) * LINE_HEIGHT + 2 * MARGIN
    rows = [
        f'<text x="{MARGIN}" y="{MARGIN + (number + 0.75) * LINE_HEIGHT:g}" xml:space="preserve">{_spans(line)}</text>'
        for number, line in enumerate(lines)
        if line
    ]
    font = 'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="12"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" {font}>',
            "<title>Output of make demo</title>",
            f'<rect width="{width:g}" height="{height:g}" rx="8" fill="{BACKGROUND}"/>',
            f'<g fill="{FOREGROUND}">',
            *rows,
            "</g>\n</svg>\n",
        )
    )


def _collapsed(lines: list[str]) -> list[str]:
    """The lines without the manifest, which the README shows, and without repeated empty ones."""
    found: list[str] = []
    for line in lines:
        is_manifest = re.match(r"         ?[ a-zA-Z]+:( |$)", line) and "curl" not in line
        if is_manifest or (not line and (not found or not found[-1])):
            continue
        found.append(line)
    return found


def _spans(line: str) -> str:
    parts, remaining, color = [], COLUMNS, ""
    pieces = SGR.split(line)
    for number, piece in enumerate(pieces):
        if number % 2:
            color = COLORS.get(piece.split(";")[-1], "")
            continue
        if not piece or remaining <= 0:
            continue
        shown = piece if len(piece) <= remaining else piece[: remaining - 1] + "…"
        remaining -= len(shown)
        printable = escape("".join(sign if sign.isprintable() else "?" for sign in shown))
        parts.append(f'<tspan fill="{color}">{printable}</tspan>' if color else printable)
    return "".join(parts)


if __name__ == "__main__":
    PICTURE.write_text(picture(Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else record()), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
