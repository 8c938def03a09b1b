"""Models become structural schemas, and what cannot is refused by name."""

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from kaito.runtime.crd import Column, Rule, Scale, Version, crd, rules, structural_schema, to_yaml
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import Container
from kaito.runtime.meta import Condition, IntOrString, Model, ObjectMeta, Quantity, Resource, Time


class Backup(Model):
    """Where copies go.

    One copy
    a day.
    """

    rules: ClassVar = [Rule("self.keep > 0", "keep at least one", field_path=".keep")]

    bucket: str
    keep: Annotated[int, Field(gt=0, le=100)] = 7


class Template(Model):
    metadata: ObjectMeta = ObjectMeta()
    anything: dict[str, Any] = {}


class DatabaseSpec(Model):
    size: int = Field(default=1, ge=1, json_schema_extra=rules(Rule("self >= oldSelf", "cannot shrink")))
    """Number of members."""
    paused: bool = False
    explicit: bool = Field(default=False, json_schema_extra={"default": False})
    engine: Literal["postgres", "mysql"] = "postgres"
    only: Literal["x"] | None = None
    memory: Quantity | None = None
    surge: IntOrString = "25%"
    backup: Backup | None = None
    labels: dict[str, str] = {}
    tags: set[str] = set()
    template: Template = Template()
    containers: list[Container] = []
    since: Time | None = None


class DatabaseStatus(Model):
    ready: int = 3
    conditions: list[Condition] = []


class Database(Resource, api="db.example.com/v1", kind="Database"):
    """A database."""

    rules: ClassVar = [Rule("size(self.metadata.name) <= 40", "name too long")]

    spec: DatabaseSpec
    status: DatabaseStatus = DatabaseStatus()


def spec_of(name: str) -> Any:
    return structural_schema(Database)["properties"]["spec"]["properties"][name]


def test_root_has_identity_and_requires_what_the_model_requires() -> None:
    schema = structural_schema(Database)
    assert schema["description"] == "A database."
    assert list(schema["properties"]) == ["apiVersion", "kind", "metadata", "spec", "status"]
    assert schema["properties"]["metadata"] == {"type": "object"}
    assert schema["required"] == ["spec"]
    assert schema["x-kubernetes-validations"] == [
        {"rule": "size(self.metadata.name) <= 40", "message": "name too long"}
    ]


def test_no_reference_title_or_null_is_left() -> None:
    text = to_yaml(structural_schema(Database))
    for word in ("$ref", "$defs", "title:", "'null'", "null"):
        assert word not in text


def test_descriptions_come_from_docstrings_without_the_source_wrapping() -> None:
    assert spec_of("size")["description"] == "Number of members."
    assert spec_of("backup")["description"] == "Where copies go.\n\nOne copy a day."


def test_only_defaults_that_say_something_are_written() -> None:
    assert spec_of("size")["default"] == 1
    assert spec_of("engine")["default"] == "postgres"
    assert spec_of("surge")["default"] == "25%"
    assert "default" not in spec_of("paused")
    assert spec_of("explicit")["default"] is False
    assert "default" not in spec_of("labels")
    assert "default" not in spec_of("template")


def test_status_assumes_nothing() -> None:
    status = structural_schema(Database)["properties"]["status"]["properties"]
    assert status["ready"] == {"type": "integer"}


def test_field_types() -> None:
    assert spec_of("engine") == {"type": "string", "enum": ["postgres", "mysql"], "default": "postgres"}
    assert spec_of("only") == {"type": "string", "enum": ["x"]}
    assert spec_of("memory")["x-kubernetes-int-or-string"] is True
    assert "type" not in spec_of("memory")
    assert spec_of("surge")["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert spec_of("labels") == {"type": "object", "additionalProperties": {"type": "string"}}
    assert spec_of("tags") == {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
    assert spec_of("since") == {"type": "string", "format": "date-time"}


def test_limits_are_spelled_as_openapi_three() -> None:
    keep = spec_of("backup")["properties"]["keep"]
    assert keep == {"type": "integer", "default": 7, "minimum": 0, "exclusiveMinimum": True, "maximum": 100}
    assert spec_of("backup")["required"] == ["bucket"]


def test_rules_stand_on_models_and_on_fields() -> None:
    assert spec_of("size")["x-kubernetes-validations"] == [{"rule": "self >= oldSelf", "message": "cannot shrink"}]
    assert spec_of("backup")["x-kubernetes-validations"][0]["fieldPath"] == ".keep"


def test_rules_of_a_field_add_to_those_of_its_model() -> None:
    class Holder(Resource, api="db.example.com/v1", kind="Holder"):
        copies: Backup = Field(json_schema_extra=rules(Rule("self == oldSelf", "fixed")))

    schema = structural_schema(Holder)["properties"]["copies"]
    assert [rule["message"] for rule in schema["x-kubernetes-validations"]] == ["keep at least one", "fixed"]


def test_free_form_objects_keep_unknown_fields() -> None:
    template = spec_of("template")["properties"]
    assert template["metadata"] == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    assert template["anything"] == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_conditions_are_a_map_by_type() -> None:
    conditions = structural_schema(Database)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_a_union_is_rejected_with_the_name_of_its_field() -> None:
    class Spec(Model):
        value: int | list[str]

    class Odd(Resource, api="x.example.com/v1", kind="Odd"):
        spec: Spec

    with pytest.raises(ConfigurationError, match=r"Odd\.spec\.value: a union"):
        structural_schema(Odd)


class Tree(Model):
    children: "list[Tree]" = []


def test_recursion_is_rejected() -> None:
    class Forest(Resource, api="x.example.com/v1", kind="Forest"):
        spec: Tree

    with pytest.raises(ConfigurationError, match="Tree is recursive"):
        structural_schema(Forest)


def test_a_type_without_json_form_is_rejected() -> None:
    class Spec(Model):
        call: timedelta | object = None

    class Odd(Resource, api="x.example.com/v1", kind="Odd"):
        spec: Spec

    with pytest.raises(ConfigurationError, match="Odd"):
        structural_schema(Odd)


class DatabaseV2(Database, api="db.example.com/v2"):
    """A database."""


def test_manifest_holds_versions_columns_and_subresources() -> None:
    manifest = crd(
        [
            Version(model=Database, deprecated="use v2"),
            Version(
                model=DatabaseV2,
                storage=True,
                columns=[Column("Size", ".spec.size", "integer"), Column("Age", ".metadata.creationTimestamp", "date")],
                scale=Scale(status_replicas=".status.ready"),
                selectable=[".spec.engine"],
            ),
        ],
        short_names=["db"],
        categories=["all"],
    )
    assert manifest["metadata"] == {"name": "databases.db.example.com"}
    spec = manifest["spec"]
    assert spec["names"] == {
        "kind": "Database",
        "listKind": "DatabaseList",
        "plural": "databases",
        "singular": "database",
        "shortNames": ["db"],
        "categories": ["all"],
    }
    old, new = spec["versions"]
    assert old["deprecationWarning"] == "use v2"
    assert new["additionalPrinterColumns"][0] == {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}
    assert new["subresources"] == {
        "status": {},
        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.ready"},
    }
    assert new["selectableFields"] == [{"jsonPath": ".spec.engine"}]


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ([Version(model=Database)], "exactly one version must have storage=True"),
        ([Version(model=Database, storage=True), Version(model=DatabaseV2, storage=True)], "exactly one"),
        ([Version(model=Database, storage=True), Version(model=Database)], "duplicate version"),
        ([], "one kind"),
    ],
)
def test_versions_that_do_not_fit_are_rejected(versions: list[Version], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        crd(versions)


def test_yaml_is_stable_and_has_no_aliases() -> None:
    shared = {"a": 1}
    assert to_yaml({"x": shared, "y": shared, "text": "one\ntwo\n"}, {"z": [1]}, header=["Generated."]) == (
        "# Generated.\nx:\n  a: 1\ny:\n  a: 1\ntext: |\n  one\n  two\n---\nz:\n  - 1\n"
    )
