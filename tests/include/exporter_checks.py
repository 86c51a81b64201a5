"""Checks of the exporter's output, shared by the tests in this folder."""

import hashlib


def contents(folder):
    """The sha256 of every file below a folder, by its relative name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_refused(done, out, *expected, status=1):
    """Assert that the exporter ended with this status and one line with all expected words, and wrote nothing."""
    assert done.returncode == status, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for words in expected:
        assert words in done.stderr
    assert "Next: " in done.stderr
    assert not out.exists()
    assert list(out.parent.glob(f".{out.name}*")) == []
