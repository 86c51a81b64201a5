"""Where a release goes: one serialisable value that becomes a Kubernetes client, sync or async, here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from slipway.errors import ClusterUnreachable, InputRefused, SlipwayError

REQUEST_TIMEOUT_S = 30  # one answer of an API server; a hung connection must not hold a task
CERTIFICATE = re.compile(r"certificate|\bPEM\b|X509")  # in what TLS says where no other try will help


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A namespace of a cluster, reached through an Airflow connection of type `kubernetes`."""

    kind: Literal["kubernetes"] = "kubernetes"
    conn_id: str
    namespace: str

    def kubectl(self, command: str) -> str:
        """The kubectl command that a person would run next in this namespace."""
        return f"kubectl -n {self.namespace} {command}"


def connected_namespace(conn_id: str) -> str:
    """The namespace that the connection names, `default` where it names none.

    Raises InputRefused where the connection is missing or its kubeconfig cannot be read.
    """
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    hook = KubernetesHook(conn_id=conn_id)
    with refused_connection(conn_id):
        hook.get_connection(conn_id)
        hook.get_conn()
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
    """A `kubernetes.client.ApiClient` on the target's cluster, from KubernetesHook.

    Raises InputRefused where the connection cannot be meant, ClusterUnreachable where nobody answers what it is asked.
    """
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
    from urllib3.exceptions import HTTPError

    with refused_connection(target.conn_id):
        client = KubernetesHook(conn_id=target.conn_id).api_client
    try:
        yield client
    except HTTPError as error:
        raise unanswered(target, client.configuration.host, error) from error
    finally:
        client.close()


def unanswered(target: Target, server: str, error: Exception) -> SlipwayError:
    """What a server that gave no answer calls for: another try, or other certificates."""
    words = _line(getattr(error, "reason", None) or error)
    if CERTIFICATE.search(words):
        return InputRefused(
            f"connection {target.conn_id}: {server}: {words}. Next: mend the certificates in its kubeconfig"
        )
    return ClusterUnreachable(
        f"connection {target.conn_id}: {server} does not answer: {words}. Next: {target.kubectl('get deployments')}"
    )


def _line(error: object) -> str:
    return " ".join(str(error).split()).rstrip(".")


@asynccontextmanager
async def async_cluster_client(target: Target) -> AsyncIterator[Any]:
    """A `kubernetes_asyncio` ApiClient on the same cluster, from AsyncKubernetesHook, for triggers."""
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook

    async with AsyncKubernetesHook(conn_id=target.conn_id).get_conn() as client:
        yield client
