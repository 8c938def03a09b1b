"""Types of fields whose struct is loaded when the first object has the field.

`from kaito.runtime.kinds.deferred import RbdVolumeSource` at run time, beside the import of the class itself for type
checkers, declares fields of the struct without creating its class. Creating a class takes about a millisecond, and
most of the structs in `kaito.runtime.kinds.structs` never occur in the objects that a controller reads.
"""

from typing import Annotated, Any, final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from kaito.runtime.kinds import structs
from kaito.runtime.kinds.structs.index import MODULE_OF
from kaito.runtime.meta import Model


@final
class Deferred:
    """Annotation of a field whose struct has the name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name: str = name

    @property
    def model(self) -> type[Model]:
        """The class of the struct, which is imported now."""
        found: type[Model] = getattr(structs, self.name)
        return found

    def validate(self, value: object) -> Model:
        """Returns the struct of a JSON object, or an instance as it is.

        Raises:
            pydantic.ValidationError: the value does not fit the struct; pydantic adds the path of the field.
        """
        return self.model.model_validate(value)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validates by the class; pydantic serializes an instance by its own class."""
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Returns the schema of the struct, for definitions of kinds that contain it."""
        self.model.model_rebuild()
        return handler(self.model.__pydantic_core_schema__)


def __getattr__(name: str) -> Any:
    """Returns the type of a field with the struct of that name."""
    if name not in MODULE_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return Annotated[Any, Deferred(name)]
