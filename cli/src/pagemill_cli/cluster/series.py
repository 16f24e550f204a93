"""Series of recurring runs on a cluster: their CronJobs, and the account that their pods run under.

Layer: `cli.cluster`. What a CronJob of a series is, `pagemill_core.recurring` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pagemill_cli.cluster.api import APPLY, Api, ApiRefusalError, JsonObject, Request, object_path
from pagemill_cli.cluster.jobs import MANAGER, check_for_cluster
from pagemill_cli.cluster.refusals import explained_object
from pagemill_core.errors import ObjectNotFoundError
from pagemill_core.recurring import SERVICE_ACCOUNT, Series, access, cron_job

_RBAC = "rbac.authorization.k8s.io/v1"
_PLURALS = {
    "CronJob": ("batch/v1", "cronjobs"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Role": (_RBAC, "roles"),
    "RoleBinding": (_RBAC, "rolebindings"),
}


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A series that the cluster has taken. `is_new`: it was not there before."""

    name: str
    namespace: str
    is_new: bool
    cron: str
    time_zone: str
    suspend: bool


class SeriesDesk:
    """Makes series in one namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @property
    def namespace(self) -> str:
        return self._api.namespace

    @property
    def context(self) -> str:
        return self._api.context

    def schedule(self, series: Series, *, makes_access: bool, dry_run: bool) -> Scheduled:
        """Make the series, or bring it up to what is asked for. Idempotent.

        `makes_access`: also its pods' account and what that may do, which the chart makes otherwise. Raises:
        InvalidSpecError for a job that cannot recur, a schedule or a time zone that the server refuses;
        ObjectNotFoundError when the account is missing; AccessDeniedError; ClusterUnavailableError.
        """
        check_for_cluster(series.job, series.namespace)
        body = cron_job(series)
        if makes_access:
            for one in access(series.namespace):
                self._apply(one, dry_run=dry_run)
        elif not dry_run:
            self._require_account()
        status, answer = self._apply(body, dry_run=dry_run)
        spec = answer.get("spec") or {}
        return Scheduled(
            name=series.name,
            namespace=series.namespace,
            is_new=status == 201,
            cron=str(spec.get("schedule") or series.cron),
            time_zone=str(spec.get("timeZone") or series.time_zone),
            suspend=bool(spec.get("suspend")),
        )

    def _require_account(self) -> None:
        path = object_path("v1", "serviceaccounts", self.namespace, SERVICE_ACCOUNT)
        try:
            self._api.call(Request(method="GET", path=path))
        except ApiRefusalError as refusal:
            if refusal.status == 403:  # whoever may not look may still make CronJobs; their pods will tell
                return
            if refusal.status != 404:
                raise explained_object(refusal, f"serviceaccount/{SERVICE_ACCOUNT}", self._api) from refusal
            raise ObjectNotFoundError(
                f"namespace {self.namespace} has no account {SERVICE_ACCOUNT} for the pods of a series",
                advice="the chart makes it with recurring.enabled; or, with the right to: pagemill schedule --access",
            ) from refusal

    def _apply(self, body: JsonObject, *, dry_run: bool) -> tuple[int, JsonObject]:
        version, plural = _PLURALS[body["kind"]]
        name = str(body["metadata"]["name"])
        query = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        request = Request(
            method="PATCH",
            path=object_path(version, plural, self.namespace, name),
            body=body,
            content_type=APPLY,
            query={**query, "dryRun": "All"} if dry_run else query,
        )
        with self._explaining(f"{body['kind'].lower()}/{name}"):
            return self._api.call(request)

    @contextmanager
    def _explaining(self, what: str) -> Iterator[None]:
        try:
            yield
        except ApiRefusalError as refusal:
            raise explained_object(refusal, what, self._api) from refusal
