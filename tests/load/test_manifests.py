"""The manifests that run the load test as pods, rendered as a user does."""

import subprocess
from pathlib import Path

import pytest
import yaml

from slipway.kubernetes.policy import Allowed, check_policy

LOADER = Path(__file__).parents[2] / "include" / "load"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def objects():
    """Every object, by kind and name, with a digest for the image."""
    words = ["kubectl", "kustomize", str(LOADER / "manifests")]
    rendered = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    named = rendered.replace("image: slipway-load", f"image: example.com/slipway-load@{DIGEST}")
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(named)}


def container(objects, job):
    """The one container of a Job."""
    [found] = objects["Job", job]["spec"]["template"]["spec"]["containers"]
    return found


def after(words, flag):
    """The word after a flag."""
    return words[words.index(flag) + 1]


def test_the_pods_have_no_power(objects):
    """They meet the Pod Security Standard `restricted`, have no token, and write to nothing but /tmp; an overlay may ask no less."""
    check_policy(list(objects.values()), Allowed(kinds=frozenset({"Job.batch"})))
    for job in ("load-master", "load-workers"):
        found = container(objects, job)
        assert found["securityContext"]["readOnlyRootFilesystem"] is True
        assert [mount["mountPath"] for mount in found["volumeMounts"] if not mount.get("readOnly")] == ["/tmp"]  # noqa: S108
        assert found["resources"].keys() == {"requests", "limits"}


def test_the_pods_end(objects):
    """A Job ends its pods after so long, whatever they do, and is deleted a day later."""
    for job in ("load-master", "load-workers"):
        spec = objects["Job", job]["spec"]
        assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (5400, 86400)


def test_the_workers_find_the_master(objects):
    """Port, number of workers and labels are the same in every place, and a variable names the Service's address."""
    master, worker = container(objects, "load-master")["args"], container(objects, "load-workers")["args"]
    service, policy = objects["Service", "load-master"]["spec"], objects["NetworkPolicy", "load-master"]["spec"]
    [port] = service["ports"]
    assert after(master, "--listen") == f"0.0.0.0:{port['port']}"
    assert after(worker, "--worker") == f"$(LOAD_MASTER_SERVICE_HOST):{port['port']}"
    assert policy["ingress"][0]["ports"] == [{"port": port["port"]}]
    assert after(master, "--request") == after(worker, "--request")
    jobs = objects["Job", "load-workers"]["spec"]
    assert int(after(master, "--workers")) == jobs["parallelism"] == jobs["completions"]
    labels = {name: objects["Job", name]["spec"]["template"]["metadata"]["labels"] for name in ("load-master", "load-workers")}  # fmt: skip
    assert service["selector"] == policy["podSelector"]["matchLabels"] == labels["load-master"]
    assert policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"] == labels["load-workers"]
