"""Generates CustomResourceDefinitions from pydantic models, which are the only source of the schema.

`Field` is pydantic's: bounds, defaults and patterns of a field, `size: int = Field(default=1, ge=1)`.

manifest = crd([Version(model=Memcached, storage=True, columns=[Column("Ready", ".status.readyReplicas")])])
Path("config/crd/memcached.yaml").write_text(to_yaml(manifest))
"""

from pydantic import Field as Field

from kaito.runtime.crd.declare import (
    Column as Column,
    Rule as Rule,
    Scale as Scale,
    Version as Version,
    rules as rules,
)
from kaito.runtime.crd.dump import to_yaml as to_yaml
from kaito.runtime.crd.manifest import crd as crd
from kaito.runtime.crd.schema import structural_schema as structural_schema
