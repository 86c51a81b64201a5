"""fetch.py with Airflow's own interpreter, which has a newer client of the Hub than the exporter's environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from exporter_checks import contents
from hub_stub import REPO, REVISION

FETCH = Path(__file__).parents[2] / "include" / "model" / "fetch.py"


@pytest.fixture
def fetched(digits_request, tmp_path):
    """Run fetch.py for a Hub model; the finished process, and the folder where the model is kept."""

    def run(repo=REPO, **environment):
        source = {"kind": "hub", "repo": repo, "revision": REVISION, "kept": str(tmp_path / "kept")}
        request = tmp_path / "request.json"
        request.write_text(json.dumps({**digits_request, "source": source}))
        done = subprocess.run(
            [sys.executable, FETCH, "--request", request], capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "HF_HOME": str(tmp_path / "hf"), **environment},
        )  # fmt: skip
        return done, tmp_path / "kept"

    return run


def test_gated_model_is_fetched_with_a_token(fetched, hub, digits_checkpoint):
    """The files are those of the Hub."""
    hub.add(digits_checkpoint, gated=True, readers={"hf_reader"})
    done, kept = fetched(HF_TOKEN="hf_reader")
    assert done.returncode == 0, done.stderr
    assert contents(digits_checkpoint) == contents(kept)


@pytest.mark.parametrize(
    ("repo", "words"), [(REPO, "access is gated"), ("someone/else", "no such model, or a private one")]
)
def test_refused_in_one_line(fetched, hub, digits_checkpoint, repo, words):
    """What the Hub refuses is refused in one line, as with the exporter's interpreter."""
    hub.add(digits_checkpoint, gated=True, readers={"hf_reader"})
    done, _ = fetched(repo)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert words in done.stderr


def test_retryable_if_the_hub_does_not_respond(fetched):
    """The status means that it can be retried."""
    done, _ = fetched("a/b")
    assert done.returncode == 75, done.stderr
    assert done.stderr.splitlines()[-1].endswith("Next: check the network, or HF_ENDPOINT.")


@pytest.mark.parametrize("status", [429, 503])
def test_retryable_if_the_hub_has_an_error(fetched, hub, digits_checkpoint, status):
    """An overloaded Hub, or an error of its own, can be retried."""
    hub.add(digits_checkpoint)
    hub.failing = status
    done, _ = fetched()
    assert done.returncode == 75, done.stderr
