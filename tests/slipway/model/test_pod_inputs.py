import json
import tarfile

import pytest

from slipway.model.pod_inputs import exporter_in_pod, move_request, pack_inputs
from slipway.runtimes import RUNTIMES

GOLDEN = [{"name": "three", "image": "/scratch/golden-three", "label": "3"}]
SOURCES = {
    "folder": ({"kind": "folder", "path": "/served/checkpoint"}, "path", "source"),
    "hub": ({"kind": "hub", "repo": "a/b", "kept": "/scratch/source"}, "kept", "source"),
    "savedmodel": (
        {"kind": "savedmodel", "url": "https://x", "kept": "/scratch/source.tar.gz"},
        "kept",
        "source.tar.gz",
    ),
}


@pytest.mark.parametrize(("source", "field", "name"), SOURCES.values(), ids=SOURCES)
def test_every_file_of_a_request_has_a_place_in_the_pod(source, field, name):
    """The request names the places in the pod; what is not a file stays as it is."""
    request = {"source": source, "golden": GOLDEN, "labelled": "/scratch/labelled.json", "model": "m"}
    told, files = move_request(request)
    assert told == {
        "source": {**source, field: f"/inputs/{name}"},
        "golden": [{**GOLDEN[0], "image": "/inputs/golden-0"}],
        "labelled": "/inputs/labelled.json",
        "model": "m",
    }
    assert {key: str(path) for key, path in files.items()} == {
        name: source[field],
        "golden-0": "/scratch/golden-three",
        "labelled.json": "/scratch/labelled.json",
    }
    assert request["source"] == source


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_pod_gets_all_code_of_the_exporter(runtime, tmp_path):
    """The program is where the pod starts it, with the modules of all folders that it uses, readable for everybody."""
    (tmp_path / "source").mkdir(mode=0o700)
    (tmp_path / "source" / "config.json").write_text("{}")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"source": {"kind": "folder", "path": str(tmp_path / "source")}, "golden": []}))
    with tarfile.open(pack_inputs(runtime, request, tmp_path / "inputs.tar")) as tar:
        members = {member.name: member for member in tar}
    assert exporter_in_pod(runtime).removeprefix("/inputs/") in members
    assert {f"code/{folder.name}" for folder in runtime.code} == {
        "/".join(name.split("/")[:2]) for name in members if name.startswith("code/")
    }
    assert {"source/config.json", "request.json"} <= members.keys()
    assert {member.mode for member in members.values() if member.isfile()} == {0o644}
    assert members["source"].mode == 0o755
    assert {member.uid for member in members.values()} == {0}
