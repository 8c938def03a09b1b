"""The picture of the dashboard shows every panel with its series, legends, units and tables."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from hack.dashboard_picture import DASHBOARD, Series, label, page, stacked

DOCUMENT: Mapping[str, Any] = json.loads(DASHBOARD.read_text())
SERIES = {
    "metric": {"phase": "ready", "namespace": "red", "name": "phi", "currency": "USD", "pod": "manager-0"},
    "values": [[0, "1"], [60, "2"], [120, "NaN"]],
}


def test_every_panel_is_drawn_with_its_series() -> None:
    asked: list[str] = []

    def query(text: str) -> Sequence[Mapping[str, Any]]:
        asked.append(text)
        return [SERIES]

    text = page(DOCUMENT, query)
    panels = [panel for panel in DOCUMENT["panels"] if panel["type"] != "row"]
    assert text.count("<h3>") == len(panels)
    assert text.count("<polyline") == sum(len(p["targets"]) for p in panels if p["type"] != "table")
    assert not any("$" in each for each in asked)
    assert "<th>cost</th>" in text
    assert "No data" not in text


def test_panel_without_series_says_so() -> None:
    text = page(DOCUMENT, lambda _: [])
    assert text.count("No data") == sum(panel["type"] != "row" for panel in DOCUMENT["panels"])


def test_values_of_the_cluster_are_escaped() -> None:
    hostile = {"metric": {"phase": "<script>", "name": "<b>"}, "values": [[0, "1"]]}
    text = page(DOCUMENT, lambda _: [hostile])
    assert not re.search("<script>|<b>", text)


def test_stacked_lines_are_sums() -> None:
    lines = [Series("a", [(0, 1), (60, 2)]), Series("b", [(60, 3), (120, 4)])]
    assert [series.points for series in stacked(lines)] == [[(0, 1), (60, 2)], [(60, 5), (120, 4)]]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0125, "s", "12.5 ms"),
        (90, "s", "90 s"),
        (300 * 2**20, "bytes", "300 MiB"),
        (0.5, "percentunit", "50%"),
        (3, "short", "3"),
        (0.25, "reqps", "0.25/s"),
    ],
)
def test_label_of_an_axis(value: float, unit: str, text: str) -> None:
    assert label(value, unit) == text
