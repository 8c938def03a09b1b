"""`Refusal`: the answer to a request that the console does not carry out."""

from kaito.console.views.json_values import Json


class Refusal(Exception):
    """A request is refused; the message names the remedy.

    Args:
        status: HTTP status.
        message: a sentence for the user.
        field: the field of a Workspace that is wrong, if one is.
    """

    def __init__(self, status: int, message: str, field: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.field = field

    def body(self) -> Json:
        """Returns the JSON of the response."""
        return {"error": str(self), "field": self.field} if self.field else {"error": str(self)}
