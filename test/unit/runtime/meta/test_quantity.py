"""Quantities compare and add by value and are written as they came."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from kaito.runtime.meta import IntOrString, Model, Quantity


class Holder(Model):
    amount: Quantity | None = None
    share: IntOrString | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("1", "1"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("2.", "2"),
        ("-3", "-3"),
        ("+4Ki", "4096"),
        ("1k", "1000"),
        ("1M", "1000000"),
        ("16Gi", "17179869184"),
        ("1Ei", str(2**60)),
        ("12e6", "12000000"),
        ("1E3", "1000"),
        ("100n", "0.0000001"),
        ("7u", "0.000007"),
    ],
)
def test_grammar(text: str, value: str) -> None:
    assert Quantity(text).value == Decimal(value)
    assert str(Quantity(text)) == text


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "1KB", "1e", "1.2.3", "Gi", "1e3Ki", "--1"])
def test_what_is_not_a_quantity_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        Quantity(text)


def test_value_decides_not_spelling() -> None:
    assert Quantity("1000m") == Quantity(1) == Quantity("1")
    assert hash(Quantity("1024Ki")) == hash(Quantity("1Mi"))
    assert Quantity("999Mi") < Quantity("1Gi") <= Quantity("1024Mi")
    assert Quantity("1") != 1
    assert not Quantity("0m")


def test_arithmetic() -> None:
    assert Quantity("1Gi") + Quantity("512Mi") == Quantity("1536Mi")
    assert str(Quantity("1.5") - Quantity("1")) == "500m"
    assert str(Quantity("2") * 3) == "6"


def test_whole_units_are_rounded_up_as_the_scheduler_does() -> None:
    assert int(Quantity("1500m")) == 2
    assert Quantity("1").milli == 1000
    assert Quantity("1u").milli == 1
    assert float(Quantity("250m")) == 0.25


def test_making() -> None:
    assert str(Quantity.gib(80)) == "80Gi"
    assert str(Quantity.of_bytes(3 * 2**30)) == "3Gi"
    assert str(Quantity.of_bytes(1536 * 2**20)) == "1536Mi"
    assert str(Quantity.of_bytes(1000)) == "1000"
    assert str(Quantity.of_bytes(0)) == "0"


def test_in_models() -> None:
    assert Holder.model_validate_json('{"amount": "1Gi"}').to_dict() == {"amount": "1Gi"}
    assert Holder.model_validate_json('{"amount": 2}').to_dict() == {"amount": "2"}
    with pytest.raises(ValidationError):
        Holder.model_validate({"amount": True})
    with pytest.raises(ValidationError):
        Holder.model_validate({"amount": "many"})


def test_int_or_string_keeps_its_type() -> None:
    assert Holder.model_validate_json('{"share": 5}').to_dict() == {"share": 5}
    assert Holder.model_validate_json('{"share": "25%"}').to_dict() == {"share": "25%"}
