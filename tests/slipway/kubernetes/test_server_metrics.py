import pytest
from metric_pods import MetricPod

from slipway.kubernetes.server_metrics import MetricsUnread, look_at_servers
from slipway.serving.metrics import PAGE, PodLook, read_page

RELEASE = "abcdefabcdef"


async def looks(release, release_id=RELEASE):
    """A look at the pods of a release."""
    return await look_at_servers(release.target, release.model, release_id)


async def test_each_server_of_the_release_is_read(release, metric_cluster):
    """Each pod is asked for its own page through the API server. A sidecar's Deployment and the preview are not read."""
    pods = [MetricPod("a"), MetricPod("b"), MetricPod("web", container="web"), MetricPod("c", f"{RELEASE}-preview")]
    cluster = metric_cluster(*pods)
    pods[0].count(3, 5, NOT_FOUND=2)
    pods[1].count(7)
    pods[1].restarts = 2
    found = await looks(release)
    assert found == [
        PodLook(uid="uid-a", restarts=0, counts=read_page(pods[0].text(), release.model)),
        PodLook(uid="uid-b", restarts=2, counts=read_page(pods[1].text(), release.model)),
    ]
    assert [look.counts.answered for look in found] == [2, 1]
    assert cluster.looks == 1


async def test_a_pod_that_is_not_ready_is_not_asked(release, metric_cluster):
    """It has no port open yet; its restarts are known."""
    starting = MetricPod("b")
    starting.ready, starting.restarts, starting.page = False, 1, "never asked for"
    metric_cluster(MetricPod("a"), starting)
    assert (await looks(release))[1] == PodLook(uid="uid-b", restarts=1, counts=None)


async def test_unread_if_no_pod_is_ready(release, metric_cluster):
    """Nothing would be known of the release."""
    pod = MetricPod("a")
    pod.ready = False
    metric_cluster(pod)
    with pytest.raises(MetricsUnread, match=f"^no pod of release {RELEASE} is ready$"):
        await looks(release)


def status(message):
    """The API server's own answer."""
    return f'{{"kind": "Status", "apiVersion": "v1", "message": "{message}"}}'


UNREAD = {
    "no page": ((404, "404 Not Found"), rf"^pod/a: {PAGE}: 404: 404 Not Found$"),
    "the pod is gone": ((404, status("not found")), r"^pod/a: .*: no answer: the API server: HTTP 404: not found$"),
    "another page": ((200, "<html>hello</html>"), rf"^pod/a: {PAGE}: is not Prometheus' text: "),
    "no right": (
        (403, status("cannot get pods/proxy")),
        r"HTTP 403: cannot get pods/proxy\. Next: give connection kubernetes_default a Role with the verb get on pods/proxy in",
    ),
    "no login": ((401, status("Unauthorized")), r"HTTP 401: .*Next: put a valid token or certificate"),
}


@pytest.mark.parametrize(("answer", "words"), UNREAD.values(), ids=UNREAD)
async def test_unread_if_a_ready_pod_gives_no_page(release, metric_cluster, answer, words):
    """What is missing would be taken for a pod without requests."""
    metric_cluster(MetricPod("a")).denied = answer
    with pytest.raises(MetricsUnread, match=words):
        await looks(release)
