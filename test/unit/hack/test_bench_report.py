"""The figures of the benchmarks: medians over turns, quantiles, and the table that the documentation shows."""

import json

import pytest

from hack.bench.framework.latency import quantile
from hack.bench.report import Column, Figures, Report, medians

TURNS: dict[str, list[Figures]] = {
    "ours": [{"wall": 3.0, "version": "a"}, {"wall": 1.0, "version": "b"}, {"wall": 2.0, "version": "c"}]
}
COLUMNS = (Column("wall", "wall", "{:.1f} s"), Column("patches", "patches", "{:,}"))


def test_a_row_is_the_median_of_its_turns_and_keeps_what_is_no_number() -> None:
    assert medians(TURNS) == {"ours": {"wall": 2.0, "version": "c"}}


def test_a_row_without_turns_is_left_out() -> None:
    assert medians({"ours": []}) == {}


@pytest.mark.parametrize(("part", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_quantile_is_the_value_below_which_that_part_lies(part: float, expected: float) -> None:
    assert quantile([float(value) for value in reversed(range(1, 101))], part) == expected


def test_the_table_writes_units_and_shows_what_does_not_apply() -> None:
    report = Report("framework", "about", {}, COLUMNS, {"ours": {"wall": 2.04, "patches": 5000}, "kopf": {"wall": 7}})
    assert report.as_markdown().splitlines() == [
        "| | wall | patches |",
        "|---|---|---|",
        "| ours | 2.0 s | 5,000 |",
        "| kopf | 7.0 s | - |",
    ]


def test_the_json_has_every_turn_and_the_machine() -> None:
    report = Report("framework", "about", {"runs": 3}, COLUMNS, medians(TURNS), TURNS)
    message = json.loads(report.as_json({"cpus": 2}))
    assert message["benchmark"] == "framework"
    assert message["machine"] == {"cpus": 2}
    assert [turn["wall"] for turn in message["turns"]["ours"]] == [3.0, 1.0, 2.0]
