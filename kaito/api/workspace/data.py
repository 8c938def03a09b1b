"""Where data comes from and goes to: datasets and adapters in, tuning results out."""

from typing import Annotated, ClassVar

from pydantic import Field

from kaito.api.schema import ImageReference, ObjectName, RawObject, Url
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Model


class DataSource(Model):
    """A dataset or an adapter. Exactly one of `urls`, `volumeSource` and `image`."""

    name: ObjectName = ""
    """Name of the data. Required for adapters, where it is the name to ask for in a request."""

    urls: Annotated[list[Url], Field(json_schema_extra={"maxItems": 32})] = Field(default_factory=list[str])
    """Files to download (http or https), for datasets. Addresses inside the cluster need the controller's flag
    `--allow-in-cluster-data-urls`; the node itself and the cloud's metadata service are never allowed."""

    volume_source: RawObject | None = None
    """A core/v1 VolumeSource, for example `{persistentVolumeClaim: {claimName: data}}`."""

    image: ImageReference = ""
    """Image whose directory `/data` holds the files: `registry/repository:tag`, the repository in lower case."""

    image_pull_secrets: Annotated[list[ObjectName], Field(json_schema_extra={"maxItems": 16})] = Field(
        default_factory=list[str]
    )
    """Secrets (same namespace, key `.dockerconfigjson`) with which `image` is pulled. Each must exist before a node is
    created."""

    @property
    def kinds(self) -> list[str]:
        """Which of the source fields are set, by their wire names; a valid source has exactly one."""
        given = {"urls": self.urls, "volumeSource": self.volume_source, "image": self.image}
        return [name for name, value in given.items() if value]


class DataDestination(Model):
    """Where results go. Exactly one of `volumeSource` and `image`."""

    rules: ClassVar = [
        Rule(
            "(has(self.image) && self.image != '') != has(self.volumeSource)",
            "set exactly one of image and volumeSource",
        ),
        Rule(
            "(has(self.image) && self.image != '') == (has(self.imagePushSecret) && self.imagePushSecret != '')",
            "imagePushSecret names the Secret that may push image: set both or neither",
            field_path=".imagePushSecret",
        ),
    ]

    volume_source: RawObject | None = None
    """A core/v1 VolumeSource that results are written to."""

    image: ImageReference = ""
    """Image that results are pushed as. Needs `imagePushSecret`."""

    image_push_secret: ObjectName = ""
    """Secret (same namespace, type `kubernetes.io/dockerconfigjson`) that allows the push."""

    @property
    def kinds(self) -> list[str]:
        """Which of the destination fields are set, by their wire names; a valid destination has exactly one."""
        given = {"volumeSource": self.volume_source, "image": self.image}
        return [name for name, value in given.items() if value]
