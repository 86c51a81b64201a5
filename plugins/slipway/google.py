"""Google's side of a target, asked through the Google provider's own hooks; loaded by the tasks of such a target alone.

The provider's calls to GKE have limits of their own (20 s, 45 s to create); the Kubernetes clients of its hooks have none
(KubernetesHook's have), so that every request of them is given one here. Where a cluster's API server is, is asked once for
a while: not for each client, and anew when it does not answer there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from slipway.errors import ClusterRefused, GoogleUnreachable, InputRefused
from slipway.target import REQUEST_TIMEOUT_S, GkeCluster

if TYPE_CHECKING:
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEHook
    from google.auth.exceptions import RefreshError


ENDPOINT_KEPT_S = 600  # a cluster keeps its address for as long as it lives; another one of its name shows itself
IMPERSONATOR = "roles/iam.serviceAccountTokenCreator"

_endpoints: dict[tuple[str, GkeCluster], tuple[float, tuple[str, str]]] = {}


def access_token(conn_id: str) -> str:
    """A token made just now, of the connection's account or of the one that it impersonates; it lives for an hour at most.

    Raises InputRefused, ClusterRefused, GoogleUnreachable.
    """
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

    with google_errors(f"connection {conn_id}", conn_id):
        return _make_token(GoogleBaseHook(gcp_conn_id=conn_id).get_credentials())


def connected_project(conn_id: str) -> str:
    """The project that a Google connection names. Raises InputRefused where there is no connection, or no project."""
    with google_errors(f"connection {conn_id}", conn_id):
        project = cluster_hook(conn_id, None).project_id
    if not project:
        raise InputRefused(
            f"connection {conn_id}: names no project. Next: set its project in Airflow, or target.gke.project"
        )
    return str(project)


def kubernetes_client(conn_id: str, cluster: GkeCluster) -> Any:
    """A `kubernetes.client.ApiClient` on the cluster, from GKEKubernetesHook: a token that has expired is made anew."""
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEKubernetesHook

    with google_errors(str(cluster), conn_id):
        url, ca = endpoint(conn_id, cluster)
        hook = GKEKubernetesHook(
            cluster_url=url, ssl_ca_cert=ca, use_dns_endpoint=cluster.endpoint == "dns", gcp_conn_id=conn_id
        )
        return limited(hook.get_conn(), lambda: token_errors(str(cluster), conn_id))


@asynccontextmanager
async def async_kubernetes_client(conn_id: str, cluster: GkeCluster) -> AsyncIterator[Any]:
    """A `kubernetes_asyncio` ApiClient on the same cluster, from GKEKubernetesAsyncHook, for triggers.

    The hook gives it one token for good: it is for one look, and the next look's client has a token of its own.
    """
    from aiohttp import ClientError
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEKubernetesAsyncHook

    url, ca = await asyncio.to_thread(endpoint, conn_id, cluster)
    hook = GKEKubernetesAsyncHook(
        cluster_url=url, ssl_ca_cert=ca, use_dns_endpoint=cluster.endpoint == "dns", gcp_conn_id=conn_id
    )
    try:
        async with hook.get_conn() as client:
            yield limited(client)
    except (ClientError, TimeoutError):
        forget_endpoint(conn_id, cluster)
        raise


def limited(client: Any, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> Any:
    """The client, each of whose requests has a limit where the caller gives none, and is made within `around`."""
    call = client.call_api

    def call_api(*words: Any, **options: Any) -> Any:
        with around():
            return call(*words, **{**options, "_request_timeout": options.get("_request_timeout") or REQUEST_TIMEOUT_S})

    client.call_api = call_api
    return client


@contextmanager
def google_errors(where: str, conn_id: str) -> Iterator[None]:
    """Google's refusal as one line of ours."""
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
    from google.api_core import exceptions as api

    def line(error: Exception) -> str:
        return " ".join(str(getattr(error, "message", None) or error).split())

    try:
        with token_errors(where, conn_id):
            yield
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {conn_id}: there is none. Next: create it in Airflow (Admin, Connections), type google_cloud_platform"
        ) from error
    except (api.ServerError, api.TooManyRequests, api.RetryError) as error:
        if isinstance(error, api.ResourceExhausted):
            raise ClusterRefused(f"{where}: {line(error)}. Next: ask Google for quota, or ask for less") from error
        raise GoogleUnreachable(f"{where}: {line(error)}. Next: look at status.cloud.google.com") from error
    except (api.Forbidden, api.Unauthorized) as error:
        raise ClusterRefused(
            f"{where}: {type(error).__name__}: {line(error)}. Next: give connection {conn_id} the right it names, or quota"
        ) from error
    except api.GoogleAPICallError as error:
        raise ClusterRefused(f"{where}: {type(error).__name__}: {line(error)}. Next: mend target.gke") from error
    except (AirflowException, OSError, ValueError) as error:
        raise InputRefused(f"connection {conn_id}: {line(error)}. Next: mend it in Airflow") from error


@contextmanager
def token_errors(where: str, conn_id: str) -> Iterator[None]:
    """Why Google gives a connection no token, as one line of ours."""
    from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError

    def line(words: object) -> str:
        return " ".join(str(words).split()).rstrip(".")

    try:
        yield
    except TransportError as error:
        raise GoogleUnreachable(f"{where}: {line(error)}. Next: look at status.cloud.google.com") from error
    except RefreshError as error:
        status, said = judge_refresh(error)
        what = f"{where}: connection {conn_id} gets no token: {line(said)}"
        if error.retryable or status in {408, 429} or status >= 500:  # noqa: PLR2004 - in trouble
            raise GoogleUnreachable(f"{what}. Next: look at status.cloud.google.com") from error
        mend = "mend its key or account"
        if "impersonat" in said:
            mend = f"give its account {IMPERSONATOR} on the account that it impersonates"
        raise ClusterRefused(f"{what}. Next: {mend}") from error
    except GoogleAuthError as error:
        raise ClusterRefused(
            f"{where}: connection {conn_id}: {type(error).__name__}: {line(error)}. Next: mend it in Airflow"
        ) from error


def judge_refresh(error: RefreshError) -> tuple[int, str]:
    """HTTP status, 0 where there is none, and words of Google's answer to a wish for a token."""
    words, *answers = error.args or ("no reason given",)
    for answer in answers:
        said = answer
        with suppress(ValueError):
            said = json.loads(answer) if isinstance(answer, str) else answer
        reason = said.get("error") if isinstance(said, dict) else None
        if isinstance(reason, dict):  # an API's; the token server's is in the words already
            return int(reason.get("code") or 0), f"{words}: {reason.get('message')}"
    return 0, str(words)


def cluster_hook(conn_id: str, cluster: GkeCluster | None) -> GKEHook:
    """The provider's hook, with a token: where gRPC is left to get one, a refused one looks like a Google in trouble."""
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEHook

    hook = GKEHook(gcp_conn_id=conn_id, location=cluster.location if cluster else None)
    if not hook.get_credentials().valid:
        _make_token(hook.get_credentials())
    return hook


def _make_token(credentials: Any) -> str:
    from google.auth.transport.requests import Request

    credentials.refresh(Request())
    return str(credentials.token)


def endpoint(conn_id: str, cluster: GkeCluster) -> tuple[str, str]:
    """Where the cluster's API server is, and its certificate authority; asked of Google once for a while.

    Raises ClusterRefused where it has none yet.
    """
    asked_s, found = _endpoints.get((conn_id, cluster), (0.0, ("", "")))
    if not asked_s or time.monotonic() - asked_s > ENDPOINT_KEPT_S:
        found = _ask_endpoint(conn_id, cluster)
        _endpoints[conn_id, cluster] = time.monotonic(), found
    return found


def forget_endpoint(conn_id: str, cluster: GkeCluster) -> None:
    """Ask Google anew next time: a cluster that was made again under its name is elsewhere, or has another authority."""
    _endpoints.pop((conn_id, cluster), None)


def _ask_endpoint(conn_id: str, cluster: GkeCluster) -> tuple[str, str]:
    from airflow.providers.google.cloud.operators.kubernetes_engine import GKEClusterAuthDetails

    with google_errors(str(cluster), conn_id):
        url, ca = GKEClusterAuthDetails(
            cluster_name=cluster.name,
            project_id=cluster.project,
            use_internal_ip=cluster.endpoint == "private",
            use_dns_endpoint=cluster.endpoint == "dns",
            cluster_hook=cluster_hook(conn_id, cluster),
        ).fetch_cluster_info()
    if url == "https://":
        raise ClusterRefused(f"{cluster}: has no {cluster.endpoint} endpoint. Next: {cluster.gcloud('describe')}")
    return url, ca
