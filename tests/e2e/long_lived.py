"""A Kubernetes client of a GKE target that outlives its token, on a worker: `long_lived.py CONTROL`; prints what it saw as JSON."""

import json
import sys
import time
import urllib.request
from datetime import timedelta

from google.auth import _helpers
from kubernetes.client import ApiException, AuthenticationV1Api, V1SelfSubjectReview

from slipway.google import gke_client
from slipway.target import GkeCluster

CLUSTER = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
REMEMBERED_S = 12  # the API server caches a token's user for 10 s


def expire_tokens(control):
    """Make Google, and so the API server, refuse every token issued until now."""
    with urllib.request.urlopen(f"{control}/state", timeout=300) as answer:
        faults = {**json.load(answer)["faults"], "expired_before": int(time.time()) + 1}
    request = urllib.request.Request(f"{control}/faults", json.dumps(faults).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=300).close()
    time.sleep(REMEMBERED_S)


def who_am_i(client):
    """The user that the API server identifies, or the status of its refusal."""
    try:
        answer = AuthenticationV1Api(client).create_self_subject_review(V1SelfSubjectReview())
    except ApiException as refusal:
        return refusal.status
    return answer.status.user_info.username


client, without = (gke_client("google_cloud_default", CLUSTER) for _ in range(2))
without.configuration.refresh_api_key_hook = None
seen = {"first": who_am_i(client), "first_without": who_am_i(without)}
expire_tokens(sys.argv[1])
_helpers.REFRESH_THRESHOLD = timedelta(hours=1)  # as if the token's hour were over
seen |= {"later": who_am_i(client), "later_without": who_am_i(without)}
print(json.dumps(seen))
