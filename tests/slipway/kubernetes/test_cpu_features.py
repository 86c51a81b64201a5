"""What a base image needs of the nodes' CPUs."""

import json
from dataclasses import replace

import pytest

from slipway.kubernetes.cpu_features import CPUID, inspect_cpu_features, judge_cpu_features

NEEDED = ("AVX512F", "AVX512VNNI")
ALL = dict.fromkeys((f"{CPUID}{feature}" for feature in (*NEEDED, "AVX2")), "true")
SOME = {f"{CPUID}AVX2": "true", f"{CPUID}AVX512F": "true"}
FAST = {"pool": "fast"}


def node(name, **labels):
    """A node with these labels."""
    return {"metadata": {"name": name, "labels": labels}}


CASES = {
    "all have them": ([node("a", **ALL), node("b", **ALL)], {}, "ok", "2 of 2 nodes are known to have them"),
    "one lacks one": ([node("a", **ALL), node("b", **SOME)], {}, "missing", "node b has no AVX512VNNI"),
    "one lacks one, and the pods do not run there": ([node("a", **ALL, **FAST), node("b", **SOME)], FAST, "ok", "1 of 1"),
    "a node without labels is unknown": ([node("a", **ALL), node("b")], {}, "ok", "1 of 2 nodes are known"),
    "no labels at all": ([node("a"), node("b")], {}, "warned", "no node that the pods may run on has labels of Node Feature"),
    "no such node": ([node("a", **ALL)], FAST, "warned", "no node that the pods may run on has labels of Node Feature"),
    "many lack them": ([node(name, **SOME) for name in "edcba"], {}, "missing", "node a has no AVX512VNNI; node b has no AVX512VNNI; node c has no AVX512VNNI; and 2 more"),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "selector", "outcome", "words"), CASES.values(), ids=CASES)
def test_nodes_are_compared(nodes, selector, outcome, words):
    """Only those that the pods may run on, and of these only those whose features are known."""
    [found] = judge_cpu_features(NEEDED, nodes, selector)
    assert (found.outcome, words in found.said) == (outcome, True), found


def deployment(release):
    """The release's Deployment, with a node selector."""
    pod = {"nodeSelector": FAST}
    return {"kind": "Deployment", "metadata": {"name": release.deployment}, "spec": {"template": {"spec": pod}}}


def test_the_clusters_nodes_are_read(release, http_server, connected):
    """With the connection of the target; the pods' node selector counts."""
    server = http_server((200, json.dumps({"items": [node("a", **SOME, **FAST), node("b", **ALL)]})))
    connected(server)
    asked = replace(release, cpu_features=NEEDED)
    [found] = inspect_cpu_features(asked, [{"kind": "Service", "metadata": {"name": "x"}}, deployment(release)])
    assert (found.outcome, server.seen[0].path) == ("missing", "/api/v1/nodes")
    assert "node a has no AVX512VNNI" in found.said


def test_nothing_is_read_if_nothing_is_needed(release):
    """A connection without the right to list nodes is no fault then."""
    assert inspect_cpu_features(release, [deployment(release)]) == []


def test_unknown_without_the_right_to_list_nodes(release, http_server, connected):
    """It is said, and the run goes on."""
    connected(http_server((403, json.dumps({"kind": "Status", "message": "nodes is forbidden"}))))
    [found] = inspect_cpu_features(replace(release, cpu_features=NEEDED), [deployment(release)])
    assert (found.outcome, "could not be read" in found.said) == ("warned", True)
