"""Generates typed models of foreign kinds from their CustomResourceDefinitions, and projects of operators.

The commands are `kaito-runtime models certificates.yaml --output kinds/cert_manager.py`, `kaito-runtime init` and
`kaito-runtime add`.

definitions   reads definitions from files and selects kinds and versions
structs       turns a schema into classes with typed fields: a pure function
source        writes the classes as a Python module: a pure function
command       the command line
project       creates and extends projects of operators

The models are frozen and lossless like those of `kaito.runtime.kinds`: unknown fields survive a read and a write, and
only the fields that were set are written.
"""

from kaito.runtime.codegen.definitions import (
    DefinitionError as DefinitionError,
    KindDefinition as KindDefinition,
    read_definitions as read_definitions,
)
from kaito.runtime.codegen.source import module_source as module_source
