"""Descriptions of fields from the docstrings of a model's attributes."""

from typing import Any

from pydantic import Field, create_model

from kaito.runtime import Resource
from kaito.runtime.crd.docstrings import attribute_docstrings
from kaito.runtime.crd.schema import structural_schema
from kaito.runtime.meta import Model


class Shared(Model):
    """A struct that others extend."""

    size: int = 0
    """Size in GiB.

    The second paragraph.
    """
    color: str = ""
    """Color of the base."""


class Tank(Shared):
    """A struct."""

    color: str = ""
    """Color of the tank."""
    plain: str = ""
    described: str = Field(default="", description="from the field")
    """from the docstring"""
    podIP: str = ""  # noqa: N815 - a name with another alias
    """An address."""


class Truck(Resource, kind="Truck", api="example.com/v1"):
    """A kind."""

    spec: Tank = Tank()
    """What is wanted."""


def test_docstrings_of_base_classes_are_inherited_and_replaced() -> None:
    assert attribute_docstrings(Tank) == {
        "size": "Size in GiB.\n\nThe second paragraph.",
        "color": "Color of the tank.",
        "described": "from the docstring",
        "podIP": "An address.",
    }


def test_a_schema_has_them_unless_the_field_has_a_description() -> None:
    spec: dict[str, Any] = structural_schema(Truck)["properties"]["spec"]
    assert spec["description"] == "What is wanted."
    described = {name: found.get("description") for name, found in spec["properties"].items()}
    assert described == {
        "size": "Size in GiB.\n\nThe second paragraph.",
        "color": "Color of the tank.",
        "plain": None,
        "described": "from the field",
        "podIP": "An address.",
    }


def test_a_model_without_source_has_none() -> None:
    assert attribute_docstrings(create_model("Made", __base__=Model, size=(int, 0))) == {}
