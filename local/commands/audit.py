"""`audit`: ask pip-audit for known vulnerabilities of every package in the locks.

pip-audit ends with 0 if it skipped packages, even all of them, as where advisories cannot be reached. Here that fails.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local.builds.environments import ENVIRONMENTS, UV_LOCK, build_environment
from local.errors import StandError
from local.progress import step
from local.settings import Settings

LOCKS = ("requirements.txt", *(environment.lock for environment in ENVIRONMENTS.values()), UV_LOCK)
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
KNOWN = "django==3.0.2"  # has had vulnerabilities for years: a service that knows none has no advisories
AUDIT_S = 1800  # one request for each package
ANSWERED = (0, 1)  # pip-audit's exit statuses without and with vulnerabilities
REQUEST_S = 60  # for one request


def audit(settings: Settings) -> list[str]:
    """What is wrong with the locks, one line for each package. Raises StandError if advisories cannot be reached."""
    program = build_environment(settings, "audit") / "bin" / "pip-audit"
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="slipway-audit-") as scratch:  # the answers, asked anew by each audit
        with step("advisories"):
            known = Path(scratch) / "known.txt"
            known.write_text(f"{KNOWN}\n")
            require_advisories(_ask(program, known, Path(scratch)))
        for lock in LOCKS:
            with step(lock) as note:
                path = settings.checkout / lock
                wrong = list(judge_lock(lock, path.read_text(), _ask(program, path, Path(scratch))))
                note(f"{len(wrong)} to look at" if wrong else "no known vulnerability")
            found += wrong
    return found


def require_advisories(answer: list[dict[str, Any]]) -> None:
    """Raise StandError if a package with known vulnerabilities has none in the answer."""
    if not any(one.get("vulns") for one in answer):
        why = next((str(one["skip_reason"]) for one in answer if one.get("skip_reason")), "it is said to have none")
        raise _unreached(f"{KNOWN} has known vulnerabilities, but {why}")


def judge_lock(name: str, lock: str, answer: list[dict[str, Any]]) -> Iterator[str]:
    """What pip-audit's answer says of a lock: vulnerable packages, and those that it skipped or left out."""
    audited = {(_canonical(one["name"]), one.get("version")): one for one in answer}
    skipped = {_canonical(one["name"]): one["skip_reason"] for one in answer if one.get("skip_reason")}
    for package, version in PINNED.findall(lock):
        one = audited.get((_canonical(package), version))
        if one is None:
            reason = skipped.get(_canonical(package), "pip-audit's answer does not have it")
            yield f"{name}: {package} {version}: skipped, so nothing is known: {reason}. Next: look it up by hand"
            continue
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"])
            yield f"{name}: {package} {version}: {vulnerability['id']}, " + (
                f"fixed in {fixed}. Next: delete its lines from {name} (and its pin from the short list), then make lock" if fixed
                else "not fixed yet. Next: read the advisory, and do without the package if it matters here"
            )  # fmt: skip


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _ask(program: Path, requirements: Path, cache: Path) -> list[dict[str, Any]]:
    """pip-audit's answer on each package of a requirements file. Raises StandError if it gives none."""
    words = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", f"--timeout={REQUEST_S}"]
    command = [str(program), "-r", str(requirements), f"--cache-dir={cache}", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreached(f"{requirements.name}: no answer after {AUDIT_S} s") from error
    try:
        answer = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        answer = None
    if done.returncode not in ANSWERED or not isinstance(answer, list):
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise _unreached(f"pip-audit: {last.strip()}")
    return answer


def _unreached(why: str) -> StandError:
    return StandError(
        f"audit: advisories cannot be reached, so nothing was checked: {why}. "
        "Next: run make audit on a machine that reaches PyPI's JSON API"
    )
