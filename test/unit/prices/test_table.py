"""Tables of prices: the shipped one, the user's, and what is wrong with one that is not valid."""

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from kaito.models import instance_types
from kaito.prices.book import PriceBook
from kaito.prices.price import Offering, amount
from kaito.prices.shipped import shipped_table
from kaito.prices.table import PriceTableError, parse_table, read_table

V100 = Offering("azure", "eastus", "Standard_NC6s_v3")
GIVEN = """
currency: EUR
asOf: 2026-11-01
source: agreement 7
prices:
- {region: westeurope, instanceType: Standard_NC6s_v3, onDemand: 2.5, spot: 0.5}
- {region: "*", instanceType: standard_nc24ads_a100_v4, onDemand: 3}
- {cloud: aws, region: us-east-1, instanceType: p4d.24xlarge, spot: 9.75}
"""


def test_the_shipped_table_contains_the_price_of_the_sample_and_its_source() -> None:
    found = shipped_table().find(V100)
    assert found is not None
    assert (found.per_hour, found.currency, found.as_of) == (Decimal("3.06"), "USD", None)
    assert "skypilot-catalog" in found.source
    spot = shipped_table().find(Offering("azure", "EastUS", "standard_nc6s_V3", "spot"))
    assert spot is not None
    assert (spot.per_hour, spot.capacity_type) == (Decimal("0.3978"), "spot")


@pytest.mark.parametrize(
    "offering",
    [
        Offering("azure", "westeurope", "Standard_NC6s_v3"),
        Offering("azure", "", "Standard_NC6s_v3"),
        Offering("aws", "eastus", "Standard_NC6s_v3"),
        Offering("azure", "eastus", "Standard_NC8ads_A10_v4"),
        Offering("azure", "eastus", "Standard_NC40ads_H100_v5", "spot"),
        Offering("azure", "westus2", "Standard_NC6_Promo"),
    ],
    ids=str,
)
def test_a_price_that_is_not_in_the_table_is_unknown(offering: Offering) -> None:
    assert shipped_table().find(offering) is None
    assert PriceBook().find_offline(offering) is None


def test_every_shipped_price_is_of_an_instance_type_of_the_catalog() -> None:
    """A name that the catalog does not contain, or spells differently, would never be found."""
    names = {offering.instance_type for offering in shipped_table().prices}
    unknown = {name for name in names if instance_types.find(name) is None}
    assert unknown == set()
    assert all(price.per_hour > 0 for price in shipped_table().prices.values())
    assert len(names) > 40


def test_the_users_table_has_precedence_and_fills_gaps(tmp_path: Path) -> None:
    own = parse_table(GIVEN, "mine.yaml")
    book = PriceBook(own=own)
    mine = book.find_offline(Offering("azure", "westeurope", "Standard_NC6s_v3"))
    assert mine is not None
    assert (str(mine), mine.source, str(mine.as_of)) == ("2.50 EUR per hour", "agreement 7", "2026-11-01")
    anywhere = book.find_offline(Offering("azure", "norwayeast", "Standard_NC24ads_A100_v4"))
    assert anywhere is not None
    assert anywhere.per_hour == 3
    shipped = book.find_offline(V100)
    assert shipped is not None
    assert shipped.currency == "USD"
    assert book.find_offline(Offering("aws", "us-east-1", "p4d.24xlarge")) is None
    assert list(book.regions("azure", "Standard_NC6s_v3")) == ["westeurope"]
    assert len(PriceBook().regions("azure", "Standard_NC6s_v3")) == 7


def test_a_row_of_a_region_has_precedence_over_the_row_of_every_region() -> None:
    rows = "prices: [{region: '*', instanceType: A, onDemand: 1}, {region: eastus, instanceType: A, onDemand: 2}]"
    table = parse_table(rows, "t")
    found = [table.find(Offering("azure", region, "a")) for region in ("eastus", "westus")]
    assert [price and price.per_hour for price in found] == [2, 1]


def test_a_config_map_contains_a_table(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump({"kind": "ConfigMap", "data": {"prices.yaml": GIVEN}}))
    assert len(read_table(path).prices) == 4
    path.write_text("kind: ConfigMap\ndata: {other: x}\n")
    with pytest.raises(PriceTableError, match=r"has no key 'prices\.yaml'"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prices: [", "is not YAML at line "),
        ("- a", "expected a mapping with the list `prices`"),
        ("", "expected a mapping"),
        ("currency: USD", "prices: is missing"),
        ("prices: {}", "prices: should be a valid list"),
        ("{currency: dollars, prices: []}", "currency: String should match pattern"),
        ("{asOf: soon, prices: []}", "asOf: should be a valid date"),
        ("prices: [{region: a, instanceType: b, onDemand: 0}]", "leave it out if the price is unknown"),
        ("prices: [{region: a, instanceType: b, onDemand: -1}]", "prices[0].onDemand: should be greater than 0"),
        ("prices: [{region: a, instanceType: b, onDemand: .nan}]", "prices[0].onDemand: should be a finite number"),
        ("prices: [{region: a, instanceType: b, spot: cheap}]", "prices[0].spot: should be a valid decimal"),
        ("prices: [{region: a, instancetype: b, onDemand: 1}]", "prices[0].instancetype: is not a field"),
        ("prices: [{instanceType: b, onDemand: 1}]", "prices[0].region: is missing"),
        ("prices: [{cloud: moon, region: a, instanceType: b}]", "prices[0].cloud: should be 'azure'"),
        (
            "prices: [{region: a, instanceType: b, spot: 1}, {region: A, instanceType: B, spot: 1}]",
            "prices[1]: B in A has two spot prices: remove one",
        ),
        ("prices: [" + "{}, " * 9 + "]", "and 13 more"),
    ],
)
def test_a_table_that_is_not_valid_is_rejected_with_the_field(text: str, words: str) -> None:
    with pytest.raises(PriceTableError) as caught:
        parse_table(text, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert words in str(caught.value)


def test_a_file_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PriceTableError, match=r"absent\.yaml: cannot be read: No such file"):
        read_table(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(PriceTableError, match="not UTF-8"):
        read_table(binary)
    binary.write_bytes(b"#" * (4 * 2**20 + 1))
    with pytest.raises(PriceTableError, match="is larger than 4 MiB"):
        read_table(binary)


def test_amounts_have_cents_and_small_ones_more_digits() -> None:
    assert [amount(Decimal(text)) for text in ("0.3978", "0.5", "3.06", "98.32", "71773.6")] == [
        "0.3978",
        "0.5",
        "3.06",
        "98.32",
        "71,773.60",
    ]
