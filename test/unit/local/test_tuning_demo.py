"""The parts of the tuning demonstration that need no model: its data, the losses in a log, the chart."""

import io

import pytest
from kaito_config import parse_training
from kaito_config.training import TrainingConfig

from kaito.local.tuning_demo import STEPS, TRAINING, TrainingView, chart, parse_losses, read_lesson
from kaito.local.view import View

LOG = """\
2026-01-01 INFO x KAITO_TUNING_PROGRESS {"phase": "loading", "step": 0}
2026-01-01 INFO x KAITO_TUNING_PROGRESS {"phase": "training", "step": 0, "total_steps": 2}
2026-01-01 INFO x KAITO_TUNING_PROGRESS {"phase": "training", "step": 1, "loss": 2.5}
a line of a library
2026-01-01 INFO x KAITO_TUNING_PROGRESS {"phase": "training", "step": 2, "loss": 0.5}
2026-01-01 INFO x KAITO_TUNING_PROGRESS {"phase": "training", "step": 2, "loss": 0.4}
2026-01-01 INFO x KAITO_TUNING_PROGRESS {"phase": "saving", "step": 2, "loss": 0.4}
"""


def test_paraphrases_are_not_in_the_training_data() -> None:
    lesson = read_lesson()
    learned = {row["question"] for row in lesson.train}
    assert len(learned) == len(lesson.train) == 24
    assert learned.isdisjoint(row["question"] for row in lesson.held_out)
    for row in lesson.held_out:
        assert any(row["expected"] in taught["answer"] for taught in lesson.train)


def test_configuration_is_valid() -> None:
    import json

    parsed = parse_training(json.dumps(TRAINING), TrainingConfig)
    assert parsed.TrainingArguments.extra_keys().get("max_steps", STEPS) == STEPS


def test_losses_are_read_from_the_log_of_the_run() -> None:
    assert parse_losses(LOG) == [2.5, 0.4]
    assert parse_losses("no report") == []


def test_reports_with_invalid_json_are_ignored() -> None:
    unfinished = 'x KAITO_TUNING_PROGRESS {"phase": "training", "st'
    assert parse_losses(LOG + unfinished) == [2.5, 0.4]


async def test_each_report_is_printed_once_while_the_model_trains() -> None:
    out = io.StringIO()
    training = TrainingView(View(out), "tuning-lighthouse")
    lines = LOG.splitlines(keepends=True)
    for end in (0, 1, 2, 2, 3, len(lines), len(lines)):
        training.show("".join(lines[:end]))
    printed = [" ".join(line.split()[1:]) for line in out.getvalue().splitlines()]
    assert printed == [
        "training tuning-lighthouse loading",
        "training tuning-lighthouse step 0 of 2",
        "training tuning-lighthouse step 1, loss 2.5000",
        "training tuning-lighthouse step 2, loss 0.5000",
        "training tuning-lighthouse step 2, loss 0.4000",
        "training tuning-lighthouse saving",
    ]


async def test_reports_of_a_second_pod_are_printed_from_the_first_one_on() -> None:
    out = io.StringIO()
    training = TrainingView(View(out), "tuning-lighthouse")
    training.show(LOG)
    training.show(LOG.splitlines()[0])
    training.show("\n".join(LOG.splitlines()[:2]))
    assert [" ".join(line.split()[3:]) for line in out.getvalue().splitlines()[-2:]] == ["loading", "step 0 of 2"]


@pytest.mark.parametrize(("report", "text"), [
    ('{"phase": "training", "step": 3, "total_steps": 18, "loss": 1.23, "eta_seconds": 134.51}',
     "step 3 of 18, loss 1.2300, about 135 s left"),
    ('{"phase": "training", "step": 18, "total_steps": 18, "loss": 0.1, "eta_seconds": 0.0}',
     "step 18 of 18, loss 0.1000"),
    ('{"phase": "failed", "step": 2, "message": "no space left on the device"}',
     "failed: no space left on the device"),
])  # fmt: skip
async def test_line_of_a_report_has_step_loss_remaining_time_and_message(report: str, text: str) -> None:
    out = io.StringIO()
    TrainingView(View(out), "t").show(f"x KAITO_TUNING_PROGRESS {report}")
    assert out.getvalue().rstrip().endswith(f"training    {'t':<34} {text}")


@pytest.mark.parametrize("losses", [[4.0, 2.0, 1.0, 0.0], [0.0], [3.0] * 20])
def test_chart_has_a_column_for_each_step(losses: list[float]) -> None:
    lines = chart(losses, height=4).splitlines()
    assert len(lines) == 6
    columns = [
        sum(len(line) > 10 + 3 * step and line[10 + 3 * step] == "█" for line in lines) for step in range(len(losses))
    ]
    top = max(losses) or 1.0
    assert columns == [sum(loss / top * 4 > row - 0.5 for row in range(1, 5)) for loss in losses]
    assert lines[-1].split()[1] == "1"
    assert f"last loss {losses[-1]:.4f}" in lines[-1]


def test_chart_of_an_empty_log_says_so() -> None:
    assert "contains no loss" in chart([])
