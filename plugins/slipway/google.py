"""Tokens, hooks and Kubernetes clients for GKE targets, from the Google provider; only tasks of such targets load this.

The provider's calls to GKE have their own time limits (20 s, 45 s to create). The Kubernetes clients of its GKE hooks have
none, unlike KubernetesHook's, so every request gets one here. Each process asks Google for a cluster's endpoint once in
ten minutes, and again if the endpoint does not respond.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from slipway.bounded_http import JSON_BYTES
from slipway.bounded_requests import bound_session, call_within
from slipway.connections import GOOGLE, find_connection
from slipway.errors import ClusterError, ClusterRefused, GoogleUnreachable, InputRefused, one_line
from slipway.strict_json import load_json
from slipway.target import REQUEST_TIMEOUT_S, GkeCluster

if TYPE_CHECKING:
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEHook
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import RefreshError
    from google.cloud.container_v1 import ClusterManagerClient


ENDPOINT_KEPT_S = 600  # an endpoint never changes; a new cluster of the same name has another one
RETRYABLE = frozenset({408, 429})  # HTTP statuses besides 5xx that can be retried
INTERNAL, UNAVAILABLE = 500, 503
TOKEN_S = 60  # for a token; Google's client retries an error itself
MAX_ANSWER = "grpc.max_receive_message_length"
IMPERSONATOR = "roles/iam.serviceAccountTokenCreator"

_endpoints: dict[tuple[str, GkeCluster], tuple[float, tuple[str, str]]] = {}


def google_access_token(conn_id: str) -> str:
    """A new token of the connection's account, or of the account that it impersonates; valid for at most an hour.

    Raises InputRefused, ClusterRefused, GoogleUnreachable.
    """
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

    with google_errors(f"connection {conn_id}", conn_id):
        return _make_token(GoogleBaseHook(gcp_conn_id=conn_id).get_credentials())


def project_of_connection(conn_id: str) -> str:
    """The project that a Google connection names. Raises InputRefused if there is no connection, or no project."""
    with google_errors(f"connection {conn_id}", conn_id):
        project = gke_hook(conn_id, None).project_id
    if not project:
        raise InputRefused(
            f"connection {conn_id}: names no project. Next: set its project in Airflow, or target.gke.project"
        )
    return str(project)


def gke_client(conn_id: str, cluster: GkeCluster) -> Any:
    """A `kubernetes.client.ApiClient` for the cluster, from GKEKubernetesHook, which renews an expired token."""
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEKubernetesHook

    with google_errors(str(cluster), conn_id):
        url, ca = gke_endpoint(conn_id, cluster)
        hook = GKEKubernetesHook(
            cluster_url=url, ssl_ca_cert=ca, use_dns_endpoint=cluster.endpoint == "dns", gcp_conn_id=conn_id
        )
        return with_request_limit(hook.get_conn(), lambda: token_errors(str(cluster), conn_id))


@asynccontextmanager
async def gke_async_client(conn_id: str, cluster: GkeCluster) -> AsyncIterator[Any]:
    """A `kubernetes_asyncio` ApiClient for the cluster, from GKEKubernetesAsyncHook, for triggers.

    The hook never renews the client's token, so a trigger uses a new client for each poll.
    """
    from aiohttp import ClientError
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEKubernetesAsyncHook

    url, ca = await asyncio.to_thread(gke_endpoint, conn_id, cluster)
    hook = GKEKubernetesAsyncHook(
        cluster_url=url, ssl_ca_cert=ca, use_dns_endpoint=cluster.endpoint == "dns", gcp_conn_id=conn_id
    )
    try:
        async with hook.get_conn() as client:
            yield with_request_limit(client)
    except (ClientError, TimeoutError):
        forget_gke_endpoint(conn_id, cluster)
        raise


def with_request_limit(client: Any, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> Any:
    """The client, with a time limit for each request that has none; each request runs within `around`."""
    call = client.call_api

    def call_api(*words: Any, **options: Any) -> Any:
        with around():
            return call(*words, **{**options, "_request_timeout": options.get("_request_timeout") or REQUEST_TIMEOUT_S})

    client.call_api = call_api
    return client


@contextmanager
def google_errors(where: str, conn_id: str) -> Iterator[None]:
    """Turns what Google's clients and the connection raise into one of our errors. The only place that does.

    Every use of a Google connection is within such a block, so it begins with a check of the connection's type.
    """
    from airflow.sdk.exceptions import AirflowException
    from google.api_core.exceptions import GoogleAPICallError, RetryError

    try:
        find_connection(conn_id, GOOGLE)
        with token_errors(where, conn_id):
            yield
    except (GoogleAPICallError, RetryError) as error:
        raise _call_error(where, conn_id, error) from error
    except (AirflowException, OSError, ValueError) as error:
        raise InputRefused(f"connection {conn_id}: {one_line(error)}. Next: fix it in Airflow") from error


@contextmanager
def token_errors(where: str, conn_id: str) -> Iterator[None]:
    """Turns the reason why Google gives a connection no token into one of our errors."""
    from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError

    try:
        yield
    except TransportError as error:
        raise google_refusal(where, UNAVAILABLE, error) from error
    except RefreshError as error:
        status, reason = read_refresh_error(error)
        then = "fix its key or account"
        if "impersonat" in reason:
            then = f"give its account {IMPERSONATOR} on the account that it impersonates"
        status = UNAVAILABLE if error.retryable else status
        raise google_refusal(f"{where}: connection {conn_id} gets no token", status, reason, then=then) from error
    except GoogleAuthError as error:
        raise ClusterRefused(
            f"{where}: connection {conn_id}: {type(error).__name__}: {one_line(error)}. Next: fix it in Airflow"
        ) from error


def google_refusal(where: str, status: int, reason: object, *, then: str = "") -> ClusterError:
    """The error for an HTTP status of Google: an outage, which can be retried, or a refusal with what to do next."""
    line = f"{where}: {one_line(reason)}. Next: "
    if status in RETRYABLE or status >= INTERNAL:
        return GoogleUnreachable(f"{line}look at status.cloud.google.com")
    return ClusterRefused(f"{line}{then}")


def _call_error(where: str, conn_id: str, error: GoogleAPICallError | RetryError) -> ClusterError:
    from google.api_core import exceptions as api

    message = one_line(error.message or error)
    if isinstance(error, api.ResourceExhausted):
        then = "request quota from Google, or ask for less"
        if "larger than max" in message:  # gRPC's words for an answer of more than JSON_BYTES
            then = f"check which server connection {conn_id} reaches"
        return ClusterRefused(f"{where}: {message}. Next: {then}")
    if isinstance(error, (api.ServerError, api.TooManyRequests, api.RetryError)):
        return google_refusal(where, UNAVAILABLE, message)
    forbidden = isinstance(error, (api.Forbidden, api.Unauthorized))
    then = f"give connection {conn_id} that right, or request quota" if forbidden else "fix target.gke"
    return ClusterRefused(f"{where}: {type(error).__name__}: {message}. Next: {then}")


def read_refresh_error(error: RefreshError) -> tuple[int, str]:
    """The HTTP status and the message in Google's answer to a request for a token; the status is 0 if it has none."""
    message, *answers = error.args or ("no reason given",)
    for answer in answers:
        parsed = answer
        with suppress(ValueError):
            parsed = load_json(answer) if isinstance(answer, str) else answer
        reason = parsed.get("error") if isinstance(parsed, dict) else None
        if isinstance(reason, dict):  # from an API; the token server's reason is in the message already
            code = reason.get("code")
            return code if isinstance(code, int) else 0, f"{message}: {reason.get('message')}"
    return 0, str(message)


def gke_hook(conn_id: str, cluster: GkeCluster | None) -> GKEHook:
    """The provider's hook, with a token: if gRPC requests it, a refused token looks like an outage of Google."""
    from airflow.providers.google.cloud.hooks.kubernetes_engine import GKEHook

    hook = GKEHook(gcp_conn_id=conn_id, location=cluster.location if cluster else None)
    if not hook.get_credentials().valid:
        _make_token(hook.get_credentials())
    hook._client = _bounded_client(hook)
    return hook


def _bounded_client(hook: GKEHook) -> ClusterManagerClient:
    """The client that the hook would make, except that an answer may have at most JSON_BYTES: Google's has no limit."""
    from airflow.providers.google.common.consts import CLIENT_INFO
    from google.cloud.container_v1 import ClusterManagerClient
    from google.cloud.container_v1.services.cluster_manager.transports import ClusterManagerGrpcTransport

    def channel(host: str, *, options: Sequence[tuple[str, int]] = (), **how: Any) -> Any:
        bounded = [*(option for option in options if option[0] != MAX_ANSWER), (MAX_ANSWER, JSON_BYTES)]
        return ClusterManagerGrpcTransport.create_channel(host, options=bounded, **how)

    return ClusterManagerClient(
        credentials=hook.get_credentials(),
        client_info=CLIENT_INFO,
        client_options=hook.get_client_options(),
        transport=partial(ClusterManagerGrpcTransport, channel=channel),
    )


def _make_token(credentials: Any) -> str:
    from google.auth.exceptions import TransportError

    try:
        call_within(TOKEN_S, lambda: credentials.refresh(token_request()))
    except TimeoutError as error:
        raise TransportError(str(error)) from error  # type: ignore[no-untyped-call]  # Google left it untyped
    return str(credentials.token)


def token_request() -> Any:
    """The function with which Google's credentials request a token. Its answer has a bounded size."""
    from google.auth.transport.requests import Request
    from requests import Session

    return Request(bound_session(Session()))


def gke_endpoint(conn_id: str, cluster: GkeCluster) -> tuple[str, str]:
    """The URL of the cluster's API server and its certificate authority, kept for ENDPOINT_KEPT_S.

    Raises ClusterRefused if the cluster has no endpoint yet.
    """
    asked_s, found = _endpoints.get((conn_id, cluster), (0.0, ("", "")))
    if not asked_s or time.monotonic() - asked_s > ENDPOINT_KEPT_S:
        found = _ask_endpoint(conn_id, cluster)
        _endpoints[conn_id, cluster] = time.monotonic(), found
    return found


def forget_gke_endpoint(conn_id: str, cluster: GkeCluster) -> None:
    """Ask Google again next time: a cluster that was deleted and created again has another endpoint or authority."""
    _endpoints.pop((conn_id, cluster), None)


def _ask_endpoint(conn_id: str, cluster: GkeCluster) -> tuple[str, str]:
    from airflow.providers.google.cloud.operators.kubernetes_engine import GKEClusterAuthDetails

    with google_errors(str(cluster), conn_id):
        url, ca = GKEClusterAuthDetails(
            cluster_name=cluster.name,
            project_id=cluster.project,
            use_internal_ip=cluster.endpoint == "private",
            use_dns_endpoint=cluster.endpoint == "dns",
            cluster_hook=gke_hook(conn_id, cluster),
        ).fetch_cluster_info()
    if url == "https://":
        raise ClusterRefused(f"{cluster}: has no {cluster.endpoint} endpoint. Next: {cluster.gcloud('describe')}")
    return url, ca
