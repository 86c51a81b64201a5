"""The kustomization of a variant, rendered by kustomize."""

from dataclasses import replace

import pytest
import yaml
from rendering import MARKS, REFERENCE, arguments_of, by_kind, server_of

from slipway.kubernetes.kustomize import build_manifests, render_manifests
from slipway.kubernetes.variant_overlay import arguments_of_variant, render_variant
from slipway.variants import Variant

OF = {"reference": REFERENCE, "version": 7, "release_id": "abcdefabcdef"}
ARGUMENTS = ["--tensorflow_inter_op_parallelism=$(CPUS)", "--max_num_load_retries=0", "--enable_batching", "--batching_parameters_file=/x"]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ARGUMENTS),
        ({"inter_op": 4}, ["--tensorflow_inter_op_parallelism=4", *ARGUMENTS[1:]]),
        ({"intra_op": 3}, [*ARGUMENTS, "--tensorflow_intra_op_parallelism=3"]),
        ({"max_batch_size": 0}, ARGUMENTS[:2]),
        ({"max_batch_size": 8}, [*ARGUMENTS[:3], "--batching_parameters_file=/etc/tf-serving/batching.txt"]),
    ],
    ids=["as it is", "a flag that it has", "a flag that it lacks", "no batches", "other batches"],
)
def test_arguments(changes, expected):
    """Only what the variant names is different."""
    assert arguments_of_variant(Variant(overlay=None, **changes), ARGUMENTS) == expected


@pytest.fixture
def objects_of(release):
    """Renders a variant's text for the release, and the text itself: `objects_of(Variant(…))`."""

    def render(variant):
        asked = replace(release, overlay=variant.overlay, export=MARKS)
        text = render_variant(variant, asked, build_manifests(asked, **OF))
        return build_manifests(asked, **OF, variant=text), text

    return render


@pytest.mark.parametrize("overlay", [None, "local", "batching"])
def test_unchanged_overlay_renders_the_same(release, objects_of, overlay):
    """A variant that is only an overlay has nothing of its own."""
    objects, text = objects_of(Variant(overlay=overlay))
    asked = replace(release, overlay=overlay, export=MARKS)
    assert objects == render_manifests(asked, **OF)
    assert yaml.safe_load(text).keys() == {"apiVersion", "kind", "resources"}


def test_threads_and_pods(release, objects_of):
    """The server's other arguments stay; the autoscaler begins with these pods and keeps its limit if that is larger."""
    objects = by_kind(objects_of(Variant(overlay="local", replicas=2, inter_op=2, intra_op=1))[0])
    assert server_of(objects)["args"] == [
        "--tensorflow_inter_op_parallelism=2", "--tensorflow_intra_op_parallelism=1", "--max_num_load_retries=0",
        "--monitoring_config_file=/etc/tf-monitoring/monitoring.txt",
    ]  # fmt: skip
    spec = objects["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 3)
    spec = by_kind(objects_of(Variant(overlay=None, replicas=5))[0])["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (5, 5)


@pytest.mark.parametrize("overlay", ["local", "batching"])
def test_batches(objects_of, overlay):
    """The server reads the file where it is mounted, also if the overlay has another one already."""
    objects = by_kind(objects_of(Variant(overlay=overlay, max_batch_size=16))[0])
    [volume] = [
        one for one in objects["Deployment"]["spec"]["template"]["spec"]["volumes"] if one["name"] == "batching"
    ]
    [mount] = [one for one in server_of(objects)["volumeMounts"] if one["name"] == "batching"]
    assert volume["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert arguments_of(objects)["batching_parameters_file"] == f"{mount['mountPath']}/batching.txt"
    assert objects["ConfigMap"]["data"]["batching.txt"].startswith("max_batch_size { value: 16 }\n")


def test_text_is_an_overlay_of_the_project(release, objects_of, overlay):
    """Saved as a folder of overlays, it renders what was measured; kustomize reads it as it stands."""
    variant = Variant(overlay="local", replicas=2, intra_op=1, max_batch_size=8)
    objects, text = objects_of(variant)
    (overlay() / "kustomization.yaml").write_text(text)
    saved = build_manifests(replace(release, overlay="mine", export=MARKS), **OF)
    assert saved == objects
    assert text.startswith("# local, 2 pods, 1 intra-op, batches of 8\n# To use it: save this as ")
