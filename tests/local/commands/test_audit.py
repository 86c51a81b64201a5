"""`make audit`: pip-audit itself, with recorded answers in place of PyPI's."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from advisories_proxy import AdvisoriesProxy

from local.builds.environments import ENVIRONMENTS, UV_LOCK, build_environment
from local.commands import audit as command
from local.commands.audit import LOCKS, audit, judge_lock
from local.errors import StandError
from local.settings import settings_here

PROJECT = Path(__file__).parents[3]
NONE = (200, {"info": {"name": "clean"}, "vulnerabilities": []})
# As PyPI's JSON API answers for a release with a known vulnerability; shortened.
RECORDED = {
    "aliases": ["CVE-2021-3281", "GHSA-fvgf-6h6h-3322"],
    "details": "In Django 2.2 before 2.2.18, 3.0 before 3.0.12, and 3.1 before 3.1.6, the django.utils.archive.extract method "
    "allows directory traversal\nvia an archive with absolute paths or relative paths with dot segments.",
    "fixed_in": ["2.2.18", "3.0.12", "3.1.6"],
    "id": "PYSEC-2021-9",
    "link": "https://osv.dev/vulnerability/PYSEC-2021-9",
    "source": "osv",
    "summary": None,
    "withdrawn": None,
}
VULNERABLE = (200, {"info": {"name": "django"}, "vulnerabilities": [RECORDED]})
PROBED = {command.KNOWN: VULNERABLE}
LOCK = "clean==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via -r requirements.in\n"


@pytest.fixture(scope="module")
def pip_audit():
    """The environment of pip-audit, built while the package index can be reached."""
    return build_environment(settings_here(), "audit")


@pytest.fixture
def audited(pip_audit, tmp_path, monkeypatch):
    """`audited(answers, lock)`: what an audit finds in a checkout whose one lock has this text."""
    proxies = []

    def run(answers, lock=LOCK, proxy=None):
        proxies.append(AdvisoriesProxy(answers))
        monkeypatch.setenv("HTTPS_PROXY", proxy or proxies[-1].url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(proxies[-1].authority))
        monkeypatch.setattr(command, "LOCKS", ("requirements.txt",))
        tool = tmp_path / ENVIRONMENTS["audit"].lock  # the environment of pip-audit is that of this checkout's lock
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_bytes((PROJECT / ENVIRONMENTS["audit"].lock).read_bytes())
        (tmp_path / UV_LOCK).write_bytes((PROJECT / UV_LOCK).read_bytes())
        (tmp_path / "requirements.txt").write_text(lock)
        return audit(replace(settings_here(), checkout=tmp_path))

    yield run
    for proxy in proxies:
        proxy.stop()


@pytest.mark.slow
def test_clean_lock_passes(audited):
    """A lock whose packages have no known vulnerability has nothing to look at."""
    assert audited({**PROBED, "clean==1.0": NONE}) == []


def test_vulnerable_package_is_named_with_its_fix(audited):
    """A vulnerable package is named with the lock, the advisory, the versions that fix it, and what to do."""
    (line,) = audited({**PROBED, "clean==1.0": NONE}, LOCK + LOCK.replace("clean==1.0", "django==3.0.2"))
    assert line.startswith("requirements.txt: django 3.0.2: PYSEC-2021-9, fixed in 2.2.18, 3.0.12, 3.1.6. Next: ")


def test_skipped_package_fails(audited):
    """A package that the advisories do not have is named: pip-audit alone would end with 0."""
    (line,) = audited({**PROBED, "clean==1.0": NONE}, LOCK + LOCK.replace("clean", "unknown"))
    assert line.startswith("requirements.txt: unknown 1.0: skipped, so nothing is known: Dependency not found on PyPI")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"clean==1.0": NONE}, r"but Dependency not found on PyPI and could not be audited: django \(3.0.2\)"),
        ({command.KNOWN: NONE}, "but it is said to have none"),
        ({command.KNOWN: (503, {})}, "ServiceError"),
    ],
    ids=["an index without advisories", "empty advisories", "a server error"],
)
def test_unreachable_advisories_are_an_error(audited, answers, why):
    """Where a package with known vulnerabilities has none, nothing was checked, and one line says so."""
    with pytest.raises(
        StandError, match=rf"^audit: advisories cannot be reached, so nothing was checked: .*({why})"
    ) as found:
        audited(answers)
    assert "\n" not in str(found.value)


@pytest.mark.slow
def test_no_connection_is_an_error(audited):
    """Without any answer one line says so, not pip-audit's traceback."""
    with pytest.raises(StandError, match=r"^audit: advisories cannot be reached") as found:
        audited({}, proxy="http://127.0.0.1:9")
    assert "\n" not in str(found.value)


def test_package_that_an_answer_leaves_out_fails():
    """A pinned package that pip-audit says nothing of counts as skipped, as does another version of it."""
    other = {"name": "clean", "version": "0.9", "vulns": []}
    for answer in ([], [other]):
        (line,) = judge_lock("requirements.txt", LOCK, answer)
        assert line.startswith("requirements.txt: clean 1.0: skipped, so nothing is known: pip-audit's answer")


def test_every_lock_is_audited():
    """No lock in the repository is left out."""
    listed = subprocess.run(
        ["git", "ls-files", "*.txt"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    locks = {name for name in listed.split() if "--hash=sha256:" in (PROJECT / name).read_text(errors="replace")}
    assert locks == set(LOCKS)


def test_help_says_what_it_does():
    """`--help` of the stand's commands has it."""
    done = subprocess.run(
        [sys.executable, "-m", "local", "--help"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert "fails if a package was skipped" in " ".join(done.stdout.split())
