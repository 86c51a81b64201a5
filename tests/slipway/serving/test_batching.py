"""The batching settings of a rendered Deployment."""

import pytest

from slipway.serving.batching import largest_batch

TEXT = "# max_batch_size { value: 1 }\nmax_batch_size { value: 3 } num_batch_threads { value: 2 }\n"


def objects(data, *, volume=None, mount=None, argument="--batching_parameters_file=/etc/tfs/batching.txt"):
    """A Deployment that mounts the ConfigMap `tfs`, and this ConfigMap with `data`."""
    container = {
        "name": "tfs-k8s",
        "args": ["--enable_batching", argument],
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "numbers", "mountPath": "/etc/tfs", **(mount or {})},
        ],
    }
    volumes = [{"name": "scratch", "emptyDir": {}}, {"name": "numbers", "configMap": {"name": "tfs", **(volume or {})}}]
    pod = {"containers": [{"name": "sidecar"}, container], "volumes": volumes}
    deployment = {"kind": "Deployment", "metadata": {"name": "tfs"}, "spec": {"template": {"spec": pod}}}
    return deployment, [deployment, {"kind": "ConfigMap", "metadata": {"name": "tfs"}, "data": data}]


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "max_batch_size: { value: 3 }",
        "max_batch_size <\n  value: 3\n>",
        "max_batch_size {\n  # at most\n  value:3 }",
    ],
)
def test_limit_is_read_from_any_text_proto(text):
    """The layout does not matter, and comments are ignored."""
    assert largest_batch(*objects({"batching.txt": text})) == 3


def test_file_is_found_as_the_container_sees_it():
    """A key may be mounted under another name, and a single file at its own path."""
    renamed = {"items": [{"key": "numbers", "path": "batching.txt"}]}
    assert largest_batch(*objects({"numbers": TEXT}, volume=renamed)) == 3
    single = {"mountPath": "/etc/tfs/batching.txt", "subPath": "numbers"}
    assert largest_batch(*objects({"numbers": TEXT}, mount=single)) == 3


@pytest.mark.parametrize(
    "given",
    [
        {"data": {"batching.txt": "num_batch_threads { value: 2 }"}},
        {"data": {"another.txt": TEXT}},
        {"data": {"batching.txt": TEXT}, "argument": "--port=8500"},
        {"data": {"batching.txt": TEXT}, "argument": "--batching_parameters_file=/elsewhere/batching.txt"},
        {"data": {"batching.txt": TEXT}, "volume": {"name": "of-somebody-else"}},
    ],
    ids=["not set", "no such key", "no file", "not mounted", "not of this overlay"],
)
def test_no_limit_if_no_object_sets_one(given):
    """The server's own default, and a file outside these objects, give no limit."""
    assert largest_batch(*objects(**given)) is None
