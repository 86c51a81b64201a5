"""Run on a worker: `acts_as.py CONNECTION NAMESPACE` prints a Google connection's token and whether it may apply, as JSON."""

import json
import sys

from kubernetes.client import AuthorizationV1Api, V1SelfSubjectAccessReview

from slipway.google import gke_client, google_access_token
from slipway.target import GkeCluster

CLUSTER = GkeCluster(project="slipway-stand", location="us-central1-a", name="tfs-cluster")
conn_id, namespace = sys.argv[1:]
asked = {"namespace": namespace, "verb": "patch", "group": "apps", "resource": "deployments"}
review = AuthorizationV1Api(gke_client(conn_id, CLUSTER)).create_self_subject_access_review(
    V1SelfSubjectAccessReview(spec={"resourceAttributes": asked})
)
print(json.dumps({"token": google_access_token(conn_id), "may_apply": review.status.allowed}))
