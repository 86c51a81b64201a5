"""What an autoscaler does: pods, their CPU and its own events, read from the API server once a second and a half."""

import threading
import time
from datetime import UTC, datetime

from kubernetes.client import AppsV1Api, AutoscalingV2Api, CoreV1Api, CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from kubernetes.utils.quantity import parse_quantity

EVERY_S = 1.5


class Timeline:
    """A Deployment and its HorizontalPodAutoscaler of the same name. In a `with` block it is read all the time."""

    def __init__(self, kubeconfig, namespace, name):
        self.namespace, self.name = namespace, name
        client = new_client_from_config(str(kubeconfig))
        self.apps, self.scaling, self.core = AppsV1Api(client), AutoscalingV2Api(client), CoreV1Api(client)
        self.objects = CustomObjectsApi(client)
        self.moments, self.over, self.failure = [], threading.Event(), None
        self.began = time.time()

    def __enter__(self):
        """Begin to read; the first moment is there at once."""
        self.moments.append(self.read())
        self.reader = threading.Thread(target=self._read_on)
        self.reader.start()
        return self

    def __exit__(self, *_):
        """End, with a last moment."""
        self.over.set()
        self.reader.join()
        if self.failure:
            raise self.failure
        self.moments.append(self.read())

    def _read_on(self):
        try:
            while not self.over.wait(EVERY_S):
                self.moments.append(self.read())
        except Exception as failure:
            self.failure = failure

    def deployment(self):
        """The Deployment."""
        return self.apps.read_namespaced_deployment(self.name, self.namespace)

    def read(self):
        """One moment: seconds since the begin, the pods that are wanted and ready, and the CPU that all of them use."""
        now, deployment = time.time(), self.deployment()
        return {
            "at_s": round(now - self.began, 1),
            "wanted": deployment.spec.replicas,
            "ready": deployment.status.ready_replicas or 0,
            "cpu_m": self.cpu(deployment.spec.selector.match_labels),
        }

    def cpu(self, labels):
        """The thousandths of a processor that the pods use together, as metrics-server says; None without metrics."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        try:
            found = self.objects.list_namespaced_custom_object(
                "metrics.k8s.io", "v1beta1", self.namespace, "pods", label_selector=selector
            )
        except ApiException:
            return None
        used = [parse_quantity(one["usage"]["cpu"]) for pod in found["items"] for one in pod["containers"]]
        return round(float(sum(used)) * 1000) if used else None

    def events(self):
        """The autoscaler's events since the begin: when, why and what."""
        selector = f"involvedObject.kind=HorizontalPodAutoscaler,involvedObject.name={self.name}"
        found = self.core.list_namespaced_event(self.namespace, field_selector=selector).items
        found = [event for event in found if event.last_timestamp.timestamp() >= self.began - 1]
        return [
            {
                "at_s": round(event.last_timestamp.timestamp() - self.began, 1),
                "reason": event.reason,
                "message": event.message,
            }
            for event in sorted(found, key=lambda event: event.last_timestamp)
        ]

    def owners_of_replicas(self):
        """Who owns the Deployment's number of pods. The autoscaler owns nothing: the API server keeps no owner of a scale."""
        fields = self.deployment().metadata.managed_fields
        return {one.manager for one in fields if "f:replicas" in one.fields_v1.get("f:spec", {})}

    def autoscaler(self):
        """What the autoscaler was told: its limits, its target, and the CPU that each pod requests."""
        spec = self.scaling.read_namespaced_horizontal_pod_autoscaler(self.name, self.namespace).spec
        container = self.deployment().spec.template.spec.containers[0]
        return {
            "least": spec.min_replicas,
            "most": spec.max_replicas,
            "target_percent": spec.metrics[0].resource.target.average_utilization,
            "request_m": round(float(parse_quantity(container.resources.requests["cpu"])) * 1000),
        }

    def as_json(self, **more):
        """Everything that was seen."""
        began = datetime.fromtimestamp(self.began, UTC).isoformat(timespec="seconds")
        told = {"deployment": self.name, "began": began, "autoscaler": self.autoscaler(), **more}
        return {**told, "events": self.events(), "moments": self.moments}
