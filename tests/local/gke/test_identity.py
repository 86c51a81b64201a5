"""The keys and certificates of the emulator."""

import ssl

from local.gke import identity


def test_bundle_has_the_machines_authorities_and_the_emulators(tmp_path, monkeypatch):
    """The machine's authorities stay trusted: the bundle that the environment names is part of the emulator's."""
    machine = identity.make_identity(tmp_path / "machine", "example.localhost:1", "").folder / "ca.pem"
    for name in identity.BUNDLES:
        monkeypatch.setenv(name, str(machine))
    ours = identity.make_identity(tmp_path / "ours", "slipway.localhost:1", "")
    bundle = ours.bundle.read_text()
    assert bundle.count(machine.read_text()) == 1
    assert (ours.folder / "ca.pem").read_text() in bundle
    ssl.create_default_context(cafile=str(ours.bundle))


def test_keys_are_generated_once_and_readable_only_by_their_owner(tmp_path):
    """A second start has the same keys, and no other user may read them."""
    first = identity.make_identity(tmp_path, "slipway.localhost:1", "")
    kept = (first.key_file.read_text(), first.server())
    assert kept == (first.key_file.read_text(), identity.make_identity(tmp_path, "slipway.localhost:1", "").server())
    assert {path.stat().st_mode & 0o77 for path in (first.key_file, tmp_path / "server.key")} == {0}
