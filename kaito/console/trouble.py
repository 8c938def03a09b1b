"""The trouble buttons of a cluster on one machine: users see what the controllers do about trouble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

from kaito.console.views.json_values import Json

Target = Literal["none", "workspace", "node", "pod"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """One kind of trouble."""

    id: str
    label: str
    explains: str
    """What the button does, and what to look at."""
    target: Target = "none"
    """What the user chooses: `workspace` and `pod` as `namespace/name`, `node` as a name."""

    def to_json(self) -> Json:
        """Returns the button as the session lists it."""
        return {"id": self.id, "label": self.label, "explains": self.explains, "target": self.target}


class TroubleFailed(Exception):
    """The trouble could not be caused; the message names the remedy."""


class Trouble(Protocol):
    """Causes trouble."""

    @property
    def buttons(self) -> Sequence[Button]:
        """The buttons, in the order in which they are shown."""
        ...

    async def cause(self, button: str, target: str) -> str:
        """Causes trouble; returns what was done.

        Args:
            button: ID of the button.
            target: what the user chose; empty if nothing.

        Raises:
            TroubleFailed: it was not possible.
        """
        ...
