"""Kubernetes clients, sync and async, for a target."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from slipway.errors import ClusterUnreachable, InputRefused, SlipwayError
from slipway.target import REQUEST_TIMEOUT_S, GkeCluster, Target

LOADER = "kubernetes/config/kube_config.py"  # of the Kubernetes client: what reads a kubeconfig
CERTIFICATE = re.compile(r"certificate|\bPEM\b|X509")  # in what TLS says where no other try will help


def connected_namespace(conn_id: str) -> str:
    """The namespace that the connection names, `default` where it names none.

    Raises InputRefused where the connection is missing or its kubeconfig cannot be read.
    """
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    hook = KubernetesHook(conn_id=conn_id)
    with refused_connection(conn_id):
        hook.get_connection(conn_id)
        _connected(hook)
        return hook.get_namespace() or "default"


@contextmanager
def refused_connection(conn_id: str) -> Iterator[None]:
    """What a connection cannot mean becomes one line that names it (InputRefused)."""
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
    from kubernetes.config import ConfigException
    from yaml import YAMLError

    mend = "Next: mend it in Airflow (Admin, Connections): kube_config_path, kube_config or in_cluster"

    try:
        yield
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {conn_id}: there is none. Next: create it in Airflow (Admin, Connections), type kubernetes"
        ) from error
    except (YAMLError, TypeError, AttributeError) as error:  # the client takes it for a mapping, whatever it is
        raise InputRefused(f"connection {conn_id}: its kubeconfig is no kubeconfig: {_line(error)}. {mend}") from error
    except (AirflowException, ConfigException, OSError, ValueError) as error:
        raise InputRefused(f"connection {conn_id}: {_line(error)}. {mend}") from error


@contextmanager
def cluster_client(target: Target) -> Iterator[Any]:
    """A `kubernetes.client.ApiClient` on the target's cluster, from KubernetesHook or GKEKubernetesHook.

    Raises InputRefused where the connection cannot be meant, ClusterUnreachable where nobody answers what it is asked.
    """
    from urllib3.exceptions import HTTPError

    client = _gke_client(target.conn_id, target.gke) if target.gke else _hook_client(target.conn_id)
    try:
        yield client
    except HTTPError as error:
        if target.gke:
            _forget_endpoint(target.conn_id, target.gke)
        raise unanswered(target, client.configuration.host, error) from error
    finally:
        client.close()


def unanswered(target: Target, server: str, error: Exception) -> SlipwayError:
    """What a server that gave no answer calls for: another try, or other certificates."""
    words = _line(getattr(error, "reason", None) or error)
    if target.gke:  # its certificates come from Google: another try asks for them anew
        return ClusterUnreachable(
            f"{target.gke}: {server} does not answer: {words}. Next: {target.gke.gcloud('describe')}"
        )
    if CERTIFICATE.search(words):
        return InputRefused(
            f"connection {target.conn_id}: {server}: {words}. Next: mend the certificates in its kubeconfig"
        )
    return ClusterUnreachable(
        f"connection {target.conn_id}: {server} does not answer: {words}. Next: {target.kubectl('get deployments')}"
    )


def _line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _hook_client(conn_id: str) -> Any:
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    with refused_connection(conn_id):
        return _connected(KubernetesHook(conn_id=conn_id))


def _connected(hook: Any) -> Any:
    """The hook's client. Raises InputRefused where the kubeconfig's exec plugin gave no credentials.

    The Kubernetes client writes the plugin's error to the log, and goes on as nobody: every request would be forbidden.
    """
    with _errors_logged_by(LOADER) as said:
        client = hook.get_conn()
    known = client.configuration.api_key or client.configuration.cert_file
    if said and not known:
        raise InputRefused(
            f"connection {hook.conn_id}: the exec plugin of its kubeconfig gave no credentials: {_line(said[-1])}. "
            "Next: have its command on every worker and triggerer, and run it there as their user"
        )
    return client


@contextmanager
def _errors_logged_by(module: str) -> Iterator[list[str]]:
    """What a module writes to the root logger as an error."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR and record.pathname.endswith(module):
                said.append(record.getMessage())

    listener = Listener()
    logging.getLogger().addHandler(listener)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(listener)


def _gke_client(conn_id: str, cluster: GkeCluster) -> Any:
    from slipway.google import kubernetes_client

    return kubernetes_client(conn_id, cluster)


def _forget_endpoint(conn_id: str, cluster: GkeCluster) -> None:
    from slipway.google import forget_endpoint

    forget_endpoint(conn_id, cluster)


@asynccontextmanager
async def async_cluster_client(target: Target) -> AsyncIterator[Any]:
    """A `kubernetes_asyncio` ApiClient on the same cluster, from the provider's async hook, for triggers."""
    if target.gke:
        from slipway.google import async_kubernetes_client

        async with async_kubernetes_client(target.conn_id, target.gke) as client:
            yield client
        return
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

    async with AsyncExitStack() as stack:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):  # an exec plugin is run, and the client waits for it for ever
            client = await stack.enter_async_context(AsyncKubernetesHook(conn_id=target.conn_id).get_conn())
        yield client


async def server_version(target: Target) -> str:
    """What the target's API server says of itself, to a token that it has accepted."""
    from kubernetes_asyncio.client import AuthorizationV1Api, V1SelfSubjectRulesReview, VersionApi

    async with async_cluster_client(target) as client:
        asked = V1SelfSubjectRulesReview(spec={"namespace": target.namespace})  # needs a login, and no further right
        await AuthorizationV1Api(client).create_self_subject_rules_review(asked, _request_timeout=REQUEST_TIMEOUT_S)
        version = await VersionApi(client).get_code(_request_timeout=REQUEST_TIMEOUT_S)
        return str(version.git_version)
