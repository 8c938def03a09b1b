"""The state of a manager's lifespan: resources that exist as long as the process, looked up by their type.

`Manager(lifespan=...)` makes the state; requests of reconciles and webhooks, polls and inbound calls refer to it.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from kaito.runtime.errors import ConfigurationError

T = TypeVar("T")

State: TypeAlias = object
"""What the lifespan yields: an object of any type."""

StateProvider = Callable[[], State]
"""Returns the state; None before the lifespan has started, and without one."""


def no_state() -> None:
    """Returns no state, for a manager without a lifespan."""


def state_of(state: State, kind: type[T]) -> T:
    """Returns the state, checked to be of a type.

    Raises:
        ConfigurationError: There is no state, or it is of another type.
    """
    if isinstance(state, kind):
        return state
    if state is None:
        message = (
            f"no lifespan has made a {kind.__name__}: give Manager(lifespan=...) a function that yields one; in a "
            f"unit test, pass lifespan_state= to the request"
        )
    else:
        message = f"the lifespan yields {type(state).__name__}, not {kind.__name__}"
    raise ConfigurationError(message)
