"""Token reviews: authenticate a bearer token."""

from pydantic import Field

from kaito.runtime.meta import Model, Resource


class TokenReviewSpec(Model):
    """The token to authenticate."""

    token: str = ""
    audiences: list[str] = []


class UserInfo(Model):
    """An authenticated user."""

    username: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}


class TokenReviewStatus(Model):
    """The user of the token, if it is valid."""

    authenticated: bool = False
    user: UserInfo = Field(default_factory=UserInfo)
    audiences: list[str] = []
    error: str = ""


class TokenReview(Resource, api="authentication.k8s.io/v1", kind="TokenReview", namespaced=False):
    """Authenticates a token when it is created; the server does not store it."""

    spec: TokenReviewSpec = Field(default_factory=TokenReviewSpec)
    status: TokenReviewStatus = Field(default_factory=TokenReviewStatus)
