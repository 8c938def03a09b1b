"""Samples of Prometheus metrics, which a program of the user may have written."""

import pytest

from kaito.workspace.server_metrics import Sample, read_samples

NAMES = frozenset({"a_total", "b:c"})


def test_the_wanted_samples_are_read() -> None:
    body = b'# TYPE a_total counter\na_total{x="1",y="2"} 3.0\nother 1\nb:c 1.5e+06 1700000000\n'
    assert read_samples(body, NAMES) == [Sample("a_total", 'x="1",y="2"', 3.0), Sample("b:c", "", 1.5e6)]


def test_the_value_of_a_label_may_contain_braces_and_quotes() -> None:
    labels = r'model="a } {b\\\" \\}",engine="0"'
    body = f'a_total{{{labels}}} 3.0 1700000000\nb:c{{x="1"}} 5 # {{trace="y"}} 7\nb:c{{x="1}} 9\n'
    assert read_samples(body.encode(), NAMES) == [Sample("a_total", labels, 3.0), Sample("b:c", 'x="1"', 5.0)]


@pytest.mark.parametrize("value", ["1e999", "1e16", "1.2.3", "+-1"])
def test_a_malformed_value_makes_all_unknown(value: str) -> None:
    assert read_samples(f"b:c 1\na_total {value}\n".encode(), NAMES) is None
    assert read_samples(f"b:c 1\nother {value}\n".encode(), NAMES) == [Sample("b:c", "", 1.0)]


@pytest.mark.timeout(20)
def test_labels_without_an_end_take_time_in_proportion_to_their_number() -> None:
    assert read_samples(b"a_total{\n" * 400_000, NAMES) == []
    assert read_samples(b"a_total{" + b'x="y",' * 400_000, NAMES) == []
    assert read_samples(b"a_total{" + b'x="y} 1' * 400_000, NAMES) == []
