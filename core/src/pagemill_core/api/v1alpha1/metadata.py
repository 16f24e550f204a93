"""The part of a job's file that belongs to Kubernetes.

Layer: `core.api`. The API server owns metadata's schema, so fields that Pagemill does not read are passed over here;
`core.api.load` refuses the ones that Kubernetes does not know.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from pagemill_core.api.v1alpha1.base import ApiModel
from pagemill_core.api.v1alpha1.types import OBJECT_NAME_PATTERN

KNOWN_METADATA = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)

JobName = Annotated[str, Field(pattern=OBJECT_NAME_PATTERN, min_length=1, max_length=63)]


class ObjectMeta(ApiModel):
    """Name, namespace, labels and what the API server adds."""

    model_config = ConfigDict(extra="ignore")

    # 63: the name is the value of the label pagemill.dev/job on every child.
    name: JobName | None = Field(default=None, description="The job's name, at most 63 characters.")
    generate_name: str | None = Field(default=None, max_length=58, description="Start of a name that the server ends.")
    namespace: str | None = Field(default=None, max_length=63, description="The namespace.")
    labels: dict[str, str] | None = Field(default=None, description="Labels.")
    annotations: dict[str, str] | None = Field(default=None, description="Annotations.")
    uid: str | None = Field(default=None, description="The object's identity, from the server.")
    resource_version: str | None = Field(default=None, description="The object's version, from the server.")
    generation: int | None = Field(default=None, description="Raised by the server with each change of the spec.")
    creation_timestamp: Annotated[AwareDatetime, Field(strict=False)] | None = Field(
        default=None, description="When the object was created."
    )
    deletion_timestamp: Annotated[AwareDatetime, Field(strict=False)] | None = Field(
        default=None, description="When deletion was asked for."
    )
