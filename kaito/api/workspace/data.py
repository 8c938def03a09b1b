"""Sources and destinations of data: datasets, adapters and tuning results."""

from typing import Annotated, ClassVar

from pydantic import Field

from kaito.api.schema import ImageReference, ObjectName, RawObject, Url
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Model


class DataSource(Model):
    """A dataset or an adapter. Exactly one of `urls`, `volumeSource` and `image`."""

    name: ObjectName = ""
    """Name of the data. Required for adapters, where it is the name of the model in requests."""

    urls: Annotated[list[Url], Field(json_schema_extra={"maxItems": 32})] = Field(default_factory=list[str])
    """URLs of files to download (http or https), for datasets. Addresses inside the cluster require the controller's
    flag `--allow-in-cluster-data-urls`. The node and the cloud's metadata service are never allowed."""

    volume_source: RawObject | None = None
    """A core/v1 VolumeSource, for example `{persistentVolumeClaim: {claimName: data}}`."""

    image: ImageReference = ""
    """Image whose directory `/data` holds the files: `registry/repository:tag`, the repository in lower case."""

    image_pull_secrets: Annotated[list[ObjectName], Field(json_schema_extra={"maxItems": 16})] = Field(
        default_factory=list[str]
    )
    """Secrets (same namespace, key `.dockerconfigjson`) for pulling `image`. They must exist before a node is
    created."""

    @property
    def kinds(self) -> list[str]:
        """Names of the source fields that are set; a valid source has exactly one."""
        given = {"urls": self.urls, "volumeSource": self.volume_source, "image": self.image}
        return [name for name, value in given.items() if value]


class DataDestination(Model):
    """Destination of results. Exactly one of `volumeSource` and `image`."""

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
    """A core/v1 VolumeSource that the results are written to."""

    image: ImageReference = ""
    """Image that the results are pushed as. Requires `imagePushSecret`."""

    image_push_secret: ObjectName = ""
    """Secret (same namespace, type `kubernetes.io/dockerconfigjson`) with credentials for the push."""

    @property
    def kinds(self) -> list[str]:
        """Names of the destination fields that are set; a valid destination has exactly one."""
        given = {"volumeSource": self.volume_source, "image": self.image}
        return [name for name, value in given.items() if value]
