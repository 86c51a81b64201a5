#!/usr/bin/env bash
# The bare steps of the blog post: export, docker commit, push, apply, one request. It checks nothing but that one answer.
# Given: MODEL_PYTHON PYTHON WORK BASE REPOSITORY NAMESPACE OVERLAY MODEL DEPLOYMENT VERSION CHECKPOINT IMAGE
set -euo pipefail
step() { now=$(date +%s.%N); [ -z "${began:-}" ] || echo "$name $(echo "$now - $began" | bc)" >>"$WORK/steps"; name=$1 began=$now; }

step export
mkdir -p "$WORK/models/$MODEL"
PYTHONPATH=include/model:. TF_USE_LEGACY_KERAS=1 TF_CPP_MIN_LOG_LEVEL=3 "$EXPORTER_PYTHON" -m benchmarks.seed_export "$CHECKPOINT" "$WORK/models/$MODEL/$VERSION"
step build_image
container=$(docker run --detach "$BASE")
docker cp --quiet "$WORK/models" "$container:/"
docker commit --change "ENV MODEL_NAME $MODEL" "$container" "$REPOSITORY:v$VERSION" >/dev/null
docker rm --force "$container" >/dev/null
step push
docker push --quiet "$REPOSITORY:v$VERSION" >/dev/null
digest=$(docker inspect --format '{{index .RepoDigests 0}}' "$REPOSITORY:v$VERSION")
step apply
kubectl kustomize "$OVERLAY" | sed -e "s#image: tensorflow/serving.*#image: $digest#" -e "s#/v1/models/model#/v1/models/$MODEL/versions/$VERSION#" \
    -e "s#\(name\|app\): tfs-server\$#\1: $DEPLOYMENT#" -e "s#tfs-server-monitoring#$DEPLOYMENT-monitoring#" |
    kubectl apply --namespace "$NAMESPACE" --server-side --force-conflicts --field-manager script --filename - >/dev/null
step wait_for_rollout
kubectl rollout status --namespace "$NAMESPACE" "deployment/$DEPLOYMENT" --timeout 300s >/dev/null
step gate
until address=$(kubectl get --namespace "$NAMESPACE" "service/$DEPLOYMENT" --output 'jsonpath={.status.loadBalancer.ingress[0].ip}') && [ -n "$address" ]; do sleep 0.25; done
body="{\"signature_name\": \"serving_default\", \"instances\": [\"$(base64 --wrap 0 "$IMAGE" | tr '+/' '-_' | tr -d '=')\"]}"
curl --silent --show-error --fail --data "$body" "http://$address:8501/v1/models/$MODEL:predict" | grep --quiet '"label": "3"'
step end
