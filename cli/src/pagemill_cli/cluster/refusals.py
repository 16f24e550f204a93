"""What an API server's refusal means, in words that say what to do.

Layer: `cli.cluster`; pure. The server's own messages, which name users, verbs and fields but never credentials, are
passed on.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagemill_cli.cluster.api import Api, ApiRefusalError
from pagemill_core.errors import (
    AccessDeniedError,
    ClusterUnavailableError,
    ClusterUnsuitableError,
    InvalidSpecError,
    ObjectNotFoundError,
    PagemillError,
    PreconditionFailedError,
)

INSTALL = (
    "install Pagemill there: `helm install pagemill charts/pagemill`, "
    "or the kinds alone: `kubectl apply --server-side -f crds/`"
)
NEW_JOB = (
    "what the work is cannot change once it is planned: undo the edit, or give the new work another metadata.name and "
    "another output.uri"
)
_NO_SUCH_KIND = ("the server could not find the requested resource", "404 page not found")
_NEVER_FITS = "failed to create typed patch object"
_FORBIDDEN_FIELD = "FieldValueForbidden"
_CONFLICT = "FieldManagerConflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for: `what` such as `ocrjob/comics`, `verbs` such as "get and patch ocrjobs"."""

    what: str
    verbs: str
    namespace: str
    context: str


def explained(refusal: ApiRefusalError, asked: Asked) -> PagemillError:
    """The error that a person gets for a refusal."""
    status = refusal.status
    if status in (400, 413, 415, 422) or (status == 500 and _NEVER_FITS in refusal.message):
        return _invalid(refusal, asked)
    if status in _OTHERS:
        return _OTHERS[status](refusal, asked)
    return ClusterUnavailableError(f"the API server of context {asked.context} answers {status}: {refusal.message}")


def explained_object(refusal: ApiRefusalError, what: str, api: Api) -> PagemillError:
    """The error for a refusal that is about an object of Kubernetes' own, such as `cronjob/comics`."""
    plural = f"{what.partition('/')[0]}s"
    asked = Asked(what=what, verbs=f"get, create and patch {plural}", namespace=api.namespace, context=api.context)
    if refusal.status == 403:
        return AccessDeniedError(
            refusal.message, advice=f"ask for a Role in namespace {api.namespace} that allows to {asked.verbs}"
        )
    return explained(refusal, asked)


def _unauthorized(_: ApiRefusalError, asked: Asked) -> PagemillError:
    return AccessDeniedError(
        f"the API server does not accept the credentials of context {asked.context}",
        advice="log in again, or choose another --context; `kubectl auth whoami` tells the same",
    )


def _forbidden(refusal: ApiRefusalError, asked: Asked) -> PagemillError:
    return AccessDeniedError(
        refusal.message,
        advice=f"ask for a Role in namespace {asked.namespace} that allows to {asked.verbs} of pagemill.dev",
    )


def _absent(refusal: ApiRefusalError, asked: Asked) -> PagemillError:
    if refusal.kind == "namespaces":
        return InvalidSpecError(
            f"there is no namespace {asked.namespace}", advice="create it, or choose another with --namespace"
        )
    if any(text in refusal.message for text in _NO_SUCH_KIND):
        return ClusterUnsuitableError(
            f"the cluster of context {asked.context} does not know jobs of pagemill.dev/v1alpha1", advice=INSTALL
        )
    return ObjectNotFoundError(
        f"there is no {asked.what} in namespace {asked.namespace}",
        advice="`kubectl get pagemill --all-namespaces` lists what there is; --namespace chooses another",
    )


def _conflict(refusal: ApiRefusalError, asked: Asked) -> PagemillError:
    if not conflicting_managers(refusal):
        return PreconditionFailedError(f"{asked.what} changed meanwhile: {refusal.message}")
    told = "; ".join(f"{cause.field.removeprefix('.')}: {cause.message}" for cause in refusal.causes)
    return PreconditionFailedError(
        f"somebody else has set what this file sets otherwise: {told}",
        advice="leave these fields out of the file, or take them over: pagemill submit --force",
    )


_OTHERS = {401: _unauthorized, 403: _forbidden, 404: _absent, 409: _conflict}


def conflicting_managers(refusal: ApiRefusalError) -> list[str]:
    """The field managers that an apply is in conflict with, empty for any other refusal."""
    told = [cause.message for cause in refusal.causes if cause.reason == _CONFLICT]
    return [message.split('"')[1] if message.count('"') >= 2 else message for message in told]


def _invalid(refusal: ApiRefusalError, asked: Asked) -> PagemillError:
    causes = [cause for cause in refusal.causes if cause.message]
    told = "\n".join(_cause_line(cause.field, cause.message) for cause in causes) or refusal.message
    is_fixed = any(cause.reason == _FORBIDDEN_FIELD and "is fixed once" in cause.message for cause in causes) or any(
        "are fixed once" in cause.message for cause in causes
    )
    if is_fixed:
        return InvalidSpecError(f"{asked.what} is planned already: {told}", advice=NEW_JOB)
    return InvalidSpecError(
        f"the cluster refuses {asked.what}: {told}",
        advice="mend what the message names; a field that this command knows and the cluster does not means that the "
        "kinds installed there are of another release",
    )


def _cause_line(field: str, message: str) -> str:
    text = message.removeprefix("Forbidden: ").removeprefix("Invalid value: ")
    return f"{field}: {text}" if field and field != "<nil>" else text
