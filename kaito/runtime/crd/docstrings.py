"""Reads the docstrings of a model's attributes from its source.

pydantic can do this when it creates a class (`use_attribute_docstrings`), which takes 1 ms to 25 ms per class at every
start of a program. Here it happens when a CustomResourceDefinition is generated, or the help of flags is printed.
"""

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise

from pydantic import BaseModel

from kaito.runtime.meta import Model


@cache
def attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Returns the docstring of each attribute of a model, also of inherited ones, by its name in Python."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base not in {BaseModel, Model}:
            found |= _own_docstrings(base)
    return found


def _own_docstrings(model: type[BaseModel]) -> dict[str, str]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):  # made at run time, or without its source
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    if not isinstance(definition, ast.ClassDef):
        return {}
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
