"""A copy of the checkout with its own stand, for measurements that need a stand without earlier runs."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
COMMAND_LIMIT_S = 3600


@contextmanager
def own_stand() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Start the copy's stand. Yields the copy's folder and the stand's `status`; deletes both afterwards."""
    with tempfile.TemporaryDirectory(prefix="slipway-copy-") as folder:
        Path(folder).chmod(0o755)  # the stand's database runs as another user
        project = Path(folder) / "project"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=PROJECT, text=True).split("\0"):
            if (PROJECT / name).is_file():
                (project / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT / name, project / name)
        try:
            on_stand(project, "up")
            yield project, json.loads(on_stand(project, "status", "--json"))
        finally:
            on_stand(project, "down")


def on_stand(project: Path, *words: str) -> str:
    """Run a command of the copy's stand. Returns its output; raises RuntimeError with the output if it fails."""
    done = subprocess.run(
        ["python3", "-m", "local", *words], cwd=project, check=False, capture_output=True, text=True,
        timeout=COMMAND_LIMIT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"python3 -m local {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout
