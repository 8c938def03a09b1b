"""Subject access reviews: check a permission of a user."""

from typing import TYPE_CHECKING

from pydantic import Field

from kaito.runtime.meta import Model, Resource

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import FieldSelectorAttributes, LabelSelectorAttributes
else:
    from kaito.runtime.kinds.deferred import FieldSelectorAttributes, LabelSelectorAttributes


class NonResourceAttributes(Model):
    """A path that is not of a resource, and the HTTP verb in lower case."""

    path: str = ""
    verb: str = ""


class ResourceAttributes(Model):
    """A request for a resource."""

    namespace: str = ""
    verb: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    field_selector: FieldSelectorAttributes | None = None
    label_selector: LabelSelectorAttributes | None = None


class SubjectAccessReviewSpec(Model):
    """The user and the request to authorize."""

    user: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    resource_attributes: ResourceAttributes | None = None
    non_resource_attributes: NonResourceAttributes | None = None


class SubjectAccessReviewStatus(Model):
    """Whether the request is allowed."""

    allowed: bool = False
    denied: bool = False
    reason: str = ""
    evaluation_error: str = ""


class SubjectAccessReview(Resource, api="authorization.k8s.io/v1", kind="SubjectAccessReview", namespaced=False):
    """Checks a permission when it is created; the server does not store it."""

    spec: SubjectAccessReviewSpec = Field(default_factory=SubjectAccessReviewSpec)
    status: SubjectAccessReviewStatus = Field(default_factory=SubjectAccessReviewStatus)
