"""Draws the panels of the Grafana dashboard with the data of a running Prometheus, for the documentation.

    python -m hack.dashboard_picture docs/assets/dashboard.png     while test_machine_path.py runs

Grafana is not needed: the panels of `config/monitoring/dashboard.json` are drawn as SVG, with its grid, units, legends
and stacking, and Chromium makes the picture.
"""

import argparse
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from hack import browser
from hack.cluster import Cluster
from kaito.runtime.clock import SystemClock

DASHBOARD: Final = Path(__file__).parents[1] / "config" / "monitoring" / "dashboard.json"
PROMETHEUS: Final = "http://127.0.0.1:9090"
"""Address of Prometheus on the cluster's network."""
STEP_SECONDS: Final = 5
CLUSTER: Final = "kaito-e2e"
WIDTH: Final = 1360
INTERVAL: Final = "1m"
"""Interval of rates: a test run takes minutes."""
COLORS: Final = ("#3b7dd8", "#e08a1e", "#3a9d5d", "#c4453c", "#8b5fbf", "#14919b", "#a07c2c", "#d0609a", "#6b7280")
MOST_LEGENDS: Final = 5
_PLOT_WIDTH: Final = 420.0
_PLOT_HEIGHT: Final = 130.0
_MARGIN: Final = 52.0
_TICKS: Final = 3
STYLE: Final = """
body { margin: 16px; width: %dpx; font: 12px "DejaVu Sans", sans-serif; color: #1f2933; background: #f4f5f7; }
h2 { font-size: 14px; margin: 14px 0 6px; }
.row { display: grid; grid-template-columns: repeat(24, 1fr); gap: 8px; }
.panel { background: #fff; border: 1px solid #d5d9e0; border-radius: 3px; padding: 8px; overflow: hidden; }
h3 { font-size: 12px; margin: 0 0 6px; font-weight: 600; }
svg { width: 100%%; display: block; }
.legend { margin-top: 4px; color: #4b5563; font-size: 11px; }
.legend { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.legend i { display: inline-block; width: 10px; height: 3px; margin: 0 4px 3px 0; }
table { border-collapse: collapse; width: 100%%; }
td, th { text-align: left; padding: 3px 8px; border-bottom: 1px solid #e5e7eb; }
.none { color: #6b7280; padding: 52px 0; text-align: center; }
"""


@dataclass(frozen=True)
class Series:
    """A line of a panel."""

    legend: str
    points: Sequence[tuple[float, float]]


def page(dashboard: Mapping[str, Any], query: Callable[[str], Sequence[Mapping[str, Any]]]) -> str:
    """Returns the page. `query` returns the series of an expression, as `query_range` of Prometheus does."""
    parts: list[str] = []
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            parts.append(f"{'</div>' if parts else ''}<h2>{html.escape(panel['title'])}</h2><div class=row>")
            continue
        found = [(target, each) for target in panel["targets"] for each in query(expression(target["expr"]))]
        body = table(panel, found) if panel["type"] == "table" else plot(panel, found)
        place = f"grid-column: span {panel['gridPos']['w']}"
        parts.append(f'<div class=panel style="{place}"><h3>{html.escape(panel["title"])}</h3>{body}</div>')
    return f"<!doctype html><meta charset=utf-8><style>{STYLE % WIDTH}</style>{''.join(parts)}</div>"


def expression(text: str) -> str:
    """Returns the expression of a panel without the variables of Grafana."""
    return text.replace("$__rate_interval", INTERVAL).replace("$namespace", ".*").replace("$workspace", ".*")


def legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Returns the legend of a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), target["legendFormat"])


def table(panel: Mapping[str, Any], found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """Returns the panel as a table of labels and, unless it is hidden, the last value."""
    if not found:
        return "<div class=none>No data</div>"
    options = panel["transformations"][0]["options"]
    value = "" if "Value" in options["excludeByName"] else options["renameByName"].get("Value", "Value")
    names = sorted({name for _, each in found for name in each["metric"]})
    rows = ["".join(f"<th>{html.escape(name)}</th>" for name in [*names, *([value] if value else [])])]
    for _, each in found:
        cells = [each["metric"].get(name, "") for name in names]
        cells += [f"{float(each['values'][-1][1]):.3f}"] if value else []
        rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def plot(panel: Mapping[str, Any], found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """Returns the panel as lines over time."""
    every = [Series(legend(target, each["metric"]), _points(each["values"])) for target, each in found]
    lines = [series for series in every if series.points]
    if not lines:
        return "<div class=none>No data</div>"
    defaults = panel["fieldConfig"]["defaults"]
    if "stacking" in defaults["custom"]:
        lines = stacked(lines)
    first, last = (end(time for series in lines for time, _ in series.points) for end in (min, max))
    top = max(value for series in lines for _, value in series.points) * 1.1 or 1.0
    ratio = panel["gridPos"]["w"] / 8
    width = _PLOT_WIDTH * ratio
    inner = width - _MARGIN - 20
    drawn = list(_axes(first, last, top, defaults["unit"], inner))
    for number, series in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        path = " ".join(
            f"{_MARGIN + (time - first) / max(last - first, 1) * inner:.1f},{_PLOT_HEIGHT * (1 - value / top):.1f}"
            for time, value in series.points
        )
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    named = [
        f'<div class=legend><i style="background:{COLORS[number % len(COLORS)]}"></i>{html.escape(series.legend)}</div>'
        for number, series in enumerate(lines[:MOST_LEGENDS])
    ]
    if len(lines) > MOST_LEGENDS:
        named.append(f"<div class=legend>and {len(lines) - MOST_LEGENDS} more</div>")
    return f'<svg viewBox="0 -8 {width:.0f} {_PLOT_HEIGHT + 30:.0f}">{"".join(drawn)}</svg>{"".join(named)}'


def stacked(lines: Sequence[Series]) -> list[Series]:
    """Returns the lines, each on top of those before it."""
    sums: dict[float, float] = {}
    result: list[Series] = []
    for series in lines:
        for time, value in series.points:
            sums[time] = sums.get(time, 0.0) + value
        result.append(Series(series.legend, [(time, sums[time]) for time, _ in series.points]))
    return result


def _points(values: Sequence[Sequence[Any]]) -> list[tuple[float, float]]:
    return [(float(time), float(value)) for time, value in values if value != "NaN"]


def _axes(first: float, last: float, top: float, unit: str, inner: float) -> Iterator[str]:
    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        y, x = _PLOT_HEIGHT * (1 - share), _MARGIN + share * inner
        yield f'<line x1="{_MARGIN}" x2="{_MARGIN + inner:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        text = label(top * share, unit)
        yield f'<text x="{_MARGIN - 4}" y="{y + 4:.1f}" text-anchor="end" font-size="10">{text}</text>'
        time = datetime.fromtimestamp(first + (last - first) * share, UTC).strftime("%H:%M")
        yield f'<text x="{x:.1f}" y="{_PLOT_HEIGHT + 16}" text-anchor="middle" font-size="10">{time}</text>'


def label(value: float, unit: str) -> str:
    """Returns a value with its unit, such as `120 ms`."""
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:.3g}{'' if unit == 'short' else '/s'}"


def range_of(cluster: Cluster, minutes: float) -> Callable[[str], Sequence[Mapping[str, Any]]]:
    """Returns a function that queries the last minutes of Prometheus."""
    end = SystemClock().now().timestamp()

    def query(text: str) -> Sequence[Mapping[str, Any]]:
        words = urlencode({"query": text, "start": end - minutes * 60, "end": end, "step": STEP_SECONDS})
        answer = json.loads(cluster.run("curl", "-sS", f"{PROMETHEUS}/api/v1/query_range?{words}").stdout)
        if answer["status"] != "success":
            raise SystemExit(f"Prometheus rejected {text}: {answer}")
        found: Sequence[Mapping[str, Any]] = answer["data"]["result"]
        return found

    return query


def screenshot(text: str, path: Path) -> None:
    """Writes the picture of a page."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(browser.locate()), args=["--no-sandbox"])
        shown = chromium.new_page(viewport={"width": WIDTH + 32, "height": 900})
        shown.set_content(text)
        shown.screenshot(path=path, full_page=True)
        chromium.close()


def main() -> None:
    """Queries Prometheus and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", default=CLUSTER, help="name of the cluster (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="time that the picture covers (default: %(default)s)")
    options = parser.parse_args()
    query = range_of(Cluster(options.name), options.minutes)
    screenshot(page(json.loads(DASHBOARD.read_text()), query), options.file)


if __name__ == "__main__":
    main()
