"""Where what is built from Go modules is kept."""

from pathlib import Path

from local.builds.binary import program_path, sources_id, stamp_flags
from local.settings import read_settings

CHECKOUT = Path(__file__).resolve().parents[3]


def test_other_sources_are_built_again(tmp_path):
    """A changed source, requirement or version gives another place in the cache."""
    (tmp_path / "go.mod").write_text("module one\n")
    before = sources_id(tmp_path), sources_id(tmp_path, "v1.34.4")
    (tmp_path / "pause").mkdir()
    (tmp_path / "pause" / "main.go").write_text("package main\n")
    assert len({*before, sources_id(tmp_path)}) == 3


def test_the_path_of_metrics_server_is_known_before_it_is_built():
    """The supervisor is configured with it, and only `up --metrics` builds it."""
    path = program_path(read_settings({"SLIPWAY_CACHE": "/cache"}, CHECKOUT), "metrics-server")
    assert path == Path(f"/cache/metrics-server-{sources_id(CHECKOUT / 'local' / 'metrics-server')}/metrics-server")


def test_the_programs_report_kubernetes_version():
    """Kubeadm and clients compare it."""
    assert "gitVersion=v1.34.4 " in stamp_flags("v1.34.4")
    assert stamp_flags("v1.34.4").endswith("gitMinor=34")
