#!/usr/bin/env bash
# The steps and checks of Slipway's refresh, as a tuned shell script: nothing sleeps longer than it must, nothing is done twice.
# It exports and compares with 🤗, builds and smoke-tests the image, pushes it, proves a preview, rolls out, gates the address and writes a record.
# Not in it: plan and diff, Lease, rollback, what a killed run leaves, retention.
# Given: EXPORTER EXPORTER_PYTHON PYTHON REQUEST WORK BASE REPOSITORY NAMESPACE OVERLAY MODEL DEPLOYMENT VERSION
set -euo pipefail
out=$WORK/out
ask() { "$PYTHON" -m benchmarks.ask --out "$out" --model "$MODEL" --version "$VERSION" "$@"; }
step() { now=$(date +%s.%N); [ -z "${began:-}" ] || echo "$name $(echo "$now - $began" | bc)" >>"$WORK/steps"; name=$1 began=$now; }

step export
mkdir -p "$WORK/home"
HOME=$WORK/home TMPDIR=$WORK/home "$EXPORTER_PYTHON" "$EXPORTER" --request "$REQUEST" --out "$out"

step build_image
container=$(docker create "$BASE")
mkdir -p "$WORK/models/$MODEL"
mv "$out/savedmodel" "$WORK/models/$MODEL/$VERSION"
docker cp --quiet "$WORK/models" "$container:/"
image=$(docker commit --change "ENV MODEL_NAME $MODEL" "$container" "$REPOSITORY:v$VERSION")
docker rm "$container" >/dev/null

step smoke_test
container=$(docker run --detach --publish 127.0.0.1::8501 --publish 127.0.0.1::8500 --user 1000:1000 --read-only --tmpfs /tmp --cap-drop ALL "$image")
trap 'docker rm --force "$container" >/dev/null 2>&1 || true' EXIT
ask --rest "http://$(docker port "$container" 8501)" --grpc "$(docker port "$container" 8500)"
docker rm --force "$container" >/dev/null

step push
docker push --quiet "$REPOSITORY:v$VERSION"
digest=$(docker inspect --format '{{index .RepoDigests 0}}' "$REPOSITORY:v$VERSION")

render() {
    kubectl kustomize "$OVERLAY" | sed -e "s#image: tensorflow/serving.*#image: $digest#" -e "s#/v1/models/model#/v1/models/$MODEL/versions/$VERSION#" \
        -e "s#\(name\|app\): tfs-server\$#\1: $1#" -e "s#tfs-server-monitoring#$1-monitoring#"
}
apply() { render "$1" | kubectl apply --namespace "$NAMESPACE" --server-side --force-conflicts --field-manager script --filename - >/dev/null; }

step preview
apply "$DEPLOYMENT-preview"
step wait_for_preview
kubectl rollout status --namespace "$NAMESPACE" "deployment/$DEPLOYMENT-preview" --timeout 300s >/dev/null
step preview_gate
kubectl proxy --port "$PROXY_PORT" >/dev/null & proxy=$!
ask --rest "http://127.0.0.1:$PROXY_PORT/api/v1/namespaces/$NAMESPACE/services/$DEPLOYMENT-preview:8501/proxy" --rounds 3
kill "$proxy"
render "$DEPLOYMENT-preview" | kubectl delete --namespace "$NAMESPACE" --wait=false --filename - >/dev/null

step apply
apply "$DEPLOYMENT"
step wait_for_rollout
kubectl rollout status --namespace "$NAMESPACE" "deployment/$DEPLOYMENT" --timeout 300s >/dev/null
step wait_for_address
until address=$(kubectl get --namespace "$NAMESPACE" "service/$DEPLOYMENT" --output 'jsonpath={.status.loadBalancer.ingress[0].ip}') && [ -n "$address" ]; do sleep 0.25; done
step gate
ask --rest "http://$address:8501" --grpc "$address:8500" --rounds 3
step record
echo "{\"digest\": \"$digest\", \"version\": $VERSION, \"address\": \"$address\"}" >"$WORK/record.json"
step end
