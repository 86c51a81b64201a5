"""Runs every command of the guide in a second checkout of the project, on its stand."""

import json
import re
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
GUIDE = "docs/your-own-model.md"
BLOCK = re.compile(r"(?P<yours><!-- yours -->\n)?```(?P<kind>sh|text)\n(?P<text>.*?)```", re.DOTALL)
LIMIT_S = 3600  # for all of the guide's blocks, on a busy machine too

pytestmark = [pytest.mark.stand, pytest.mark.slow]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The reader's checkpoint: the shipped weights, with words as labels."""
    folder = tmp_path_factory.mktemp("reader") / "checkpoint"
    shutil.copytree(PROJECT / "include" / "served" / "digits-vit" / "checkpoint", folder)
    config = json.loads((folder / "config.json").read_text())
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    config["id2label"] = {str(number): word for number, word in enumerate(words)}
    config["label2id"] = {word: number for number, word in enumerate(words)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def yours(second, checkpoint):
    """The values that the guide's reader fills in, for this stand."""
    status = second.status
    return status["airflow"]["environment_file"], {
        "CHECKPOINT": str(checkpoint),
        "PHOTO": str(PROJECT / "include" / "served" / "digits-vit" / "golden" / "seven.png"),
        "LABEL": "seven",
        "KUBECONFIG": status["kubeconfig"],
        "NAMESPACE": status["namespace"],
        "CLIENTS": "127.0.0.0/8",
        "ENGINE": status["docker_host"],
        "REGISTRY": status["registry"],
        "STORE": status["store"],
    }


def blocks_of(page):
    """The block that the reader fills in, and the page's other shell blocks, each with the output shown below it, or None."""
    found = [match.groupdict() for match in BLOCK.finditer(page)]
    [filled_in] = [block["text"] for block in found if block["yours"]]
    following = [*found[1:], {"kind": "sh"}]
    steps = [
        (block["text"], after["text"] if after["kind"] == "text" else None)
        for block, after in zip(found, following, strict=True)
        if block["kind"] == "sh" and not block["yours"]
    ]
    return filled_in, steps


def shows(expected, output):
    """Whether the output matches the page: `…` matches anything on a line, JSON fields match in any order."""
    with suppress(ValueError):
        output = json.dumps(json.loads(output), indent=4, sort_keys=True)
    pattern = re.escape(expected.strip()).replace("…", "[^\n]*")
    return re.search(rf"^{pattern}$", output.strip(), re.MULTILINE) is not None


def test_the_guides_commands_do_what_the_page_says(second, yours):
    """In order, every block succeeds and prints what the page shows, and the model answers."""
    project, (surroundings, values) = second.project, yours
    filled_in, steps = blocks_of((project / GUIDE).read_text())
    assert re.findall(r"^export (\w+)=", filled_in, re.MULTILINE) == list(values)
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    end_s, outputs = time.monotonic() + LIMIT_S, []
    for block, expected in steps:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f". {shlex.quote(surroundings)}\n{exports}{block}"],
            capture_output=True, text=True, check=False, cwd=project, timeout=end_s - time.monotonic(),
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}{done.stdout[-3000:]}{done.stderr[-3000:]}"
        assert expected is None or shows(expected, done.stdout), f"{block}{done.stdout[-3000:]}"
        outputs.append(done.stdout)
    [answer] = [json.loads(output) for output in outputs if output.startswith("{")]
    assert answer["predictions"][0]["label"] == "seven"
    left = subprocess.check_output(
        ["bash", "-c", f'. {shlex.quote(surroundings)}\n{exports}kubectl -n "$NAMESPACE" get all -l slipway/model=my-model -o name'],
        text=True, timeout=60,
    )  # fmt: skip
    assert [name for name in left.splitlines() if not name.startswith(("pod/", "replicaset"))] == []
