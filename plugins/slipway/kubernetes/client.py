"""Kubernetes clients, sync and async, for a target."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from slipway.connections import KUBERNETES, check_type
from slipway.errors import ClusterUnreachable, InputRefused, SlipwayError, one_line
from slipway.target import REQUEST_TIMEOUT_S, GkeCluster, Target

LOADER = "kubernetes/config/kube_config.py"  # the module of the Kubernetes client that reads a kubeconfig
CERTIFICATE = re.compile(r"certificate|\bPEM\b|X509")  # in TLS errors that a retry does not fix


def namespace_of_connection(conn_id: str) -> str:
    """The connection's namespace, `default` if it has none.

    Raises InputRefused if the connection is missing or its kubeconfig is invalid.
    """
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    hook = KubernetesHook(conn_id=conn_id)
    with kubernetes_connection_errors(conn_id):
        _connected(hook)
        return hook.get_namespace() or "default"


@contextmanager
def kubernetes_connection_errors(conn_id: str) -> Iterator[None]:
    """Maps what the hook raises for a missing or invalid connection to InputRefused."""
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    fix = "Next: fix it in Airflow (Admin, Connections): kube_config_path, kube_config or in_cluster"

    try:
        yield
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {conn_id}: no such connection. Next: create it in Airflow (Admin, Connections), type kubernetes"
        ) from error
    except (YAMLError, TypeError, AttributeError) as error:  # the client expects a mapping, and does not check
        raise InputRefused(f"connection {conn_id}: its kubeconfig is invalid: {one_line(error)}. {fix}") from error
    except (AirflowException, ConfigException, OSError, ValueError) as error:
        raise InputRefused(f"connection {conn_id}: {one_line(error)}. {fix}") from error


@contextmanager
def cluster_client(target: Target) -> Iterator[Any]:
    """A `kubernetes.client.ApiClient` on the target's cluster, from KubernetesHook or GKEKubernetesHook.

    Raises InputRefused if the connection is invalid, ClusterUnreachable if a request gets no response.
    """
    from urllib3.exceptions import HTTPError

    client = _gke_client(target.conn_id, target.gke) if target.gke else _hook_client(target.conn_id)
    try:
        yield client
    except HTTPError as error:
        if target.gke:
            _forget_endpoint(target.conn_id, target.gke)
        raise api_server_unreachable(target, client.configuration.host, error) from error
    finally:
        client.close()


def api_server_unreachable(target: Target, server: str, error: Exception) -> SlipwayError:
    """The error of a server that did not respond: it can be retried, unless a certificate is wrong."""
    words = one_line(getattr(error, "reason", None) or error)
    if target.gke:  # its certificates come from Google: a retry fetches them again
        return ClusterUnreachable(
            f"{target.gke}: {server} does not answer: {words}. Next: {target.gke.gcloud('describe')}"
        )
    if CERTIFICATE.search(words):
        return InputRefused(
            f"connection {target.conn_id}: {server}: {words}. Next: fix the certificates in its kubeconfig"
        )
    return ClusterUnreachable(
        f"connection {target.conn_id}: {server} does not answer: {words}. Next: {target.kubectl('get deployments')}"
    )


def _hook_client(conn_id: str) -> Any:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    with kubernetes_connection_errors(conn_id):
        return _connected(KubernetesHook(conn_id=conn_id))


def _connected(hook: Any) -> Any:
    """The hook's client. Raises InputRefused if the kubeconfig's exec plugin gave no credentials.

    The Kubernetes client only logs the plugin's error and goes on without credentials: every request would be forbidden.
    Raises InputRefused if the connection is of another type, too.
    """
    connection = hook.get_connection(hook.conn_id)
    if connection.conn_type is not None:  # else there is none, and the hook uses the account of its own pod
        check_type(connection, KUBERNETES)
    with _errors_logged_by(LOADER) as errors:
        client = hook.get_conn()
    has_credentials = client.configuration.api_key or client.configuration.cert_file
    if errors and not has_credentials:
        raise InputRefused(
            f"connection {hook.conn_id}: the exec plugin of its kubeconfig gave no credentials: {one_line(errors[-1])}. "
            "Next: install its command on every worker and triggerer, and test it there as their user"
        )
    return client


@contextmanager
def _errors_logged_by(module: str) -> Iterator[list[str]]:
    """The errors that a module writes to the root logger."""
    errors: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR and record.pathname.endswith(module):
                errors.append(record.getMessage())

    listener = Listener()
    logging.getLogger().addHandler(listener)
    try:
        yield errors
    finally:
        logging.getLogger().removeHandler(listener)


def _gke_client(conn_id: str, cluster: GkeCluster) -> Any:
    from slipway.google import gke_client

    return gke_client(conn_id, cluster)


def _forget_endpoint(conn_id: str, cluster: GkeCluster) -> None:
    from slipway.google import forget_gke_endpoint

    forget_gke_endpoint(conn_id, cluster)


@asynccontextmanager
async def async_cluster_client(target: Target) -> AsyncIterator[Any]:
    """A `kubernetes_asyncio` ApiClient on the target's cluster, from the provider's async hook, for triggers."""
    if target.gke:
        from slipway.google import gke_async_client

        async with gke_async_client(target.conn_id, target.gke) as client:
            yield client
        return
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

    async with AsyncExitStack() as stack:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):  # the client waits for an exec plugin without a limit
            client = await stack.enter_async_context(AsyncKubernetesHook(conn_id=target.conn_id).get_conn())
        yield client


async def api_server_version(target: Target) -> str:
    """The API server's version; the credentials are checked first."""
    from kubernetes_asyncio.client import AuthorizationV1Api, V1SelfSubjectRulesReview, VersionApi

    async with async_cluster_client(target) as client:
        review = V1SelfSubjectRulesReview(spec={"namespace": target.namespace})  # needs a login, and no right
        await AuthorizationV1Api(client).create_self_subject_rules_review(review, _request_timeout=REQUEST_TIMEOUT_S)
        version = await VersionApi(client).get_code(_request_timeout=REQUEST_TIMEOUT_S)
        return str(version.git_version)
