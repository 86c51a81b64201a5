"""The hosts file: what the stand adds for the emulator of Google, and what it keeps."""

from local.parts.hosts import add_names, our_lines, plan_names, remove_names

THEIRS = "127.0.0.1 localhost\n10.0.0.7 build  # the user's"
NAMES = ("compute.slipway.invalid", "serviceusage.slipway.invalid")
OURS = "127.0.0.1 compute.slipway.invalid serviceusage.slipway.invalid # slipway's stand"


def test_one_line_is_added_and_removed_again(tmp_path):
    """One marked line is added only once. After its removal the file is as before, plus a final newline."""
    path = tmp_path / "hosts"
    path.write_text(THEIRS)
    assert add_names(NAMES, path)
    assert add_names(NAMES, path)
    assert path.read_text() == f"{THEIRS}\n{OURS}\n"
    assert our_lines(path) == [OURS]
    remove_names(path)
    assert path.read_text() == f"{THEIRS}\n"


def test_file_is_not_read_if_the_machine_resolves_the_names(tmp_path):
    """If the resolver knows the names, no line is needed."""
    assert not add_names(["localhost"], tmp_path / "none")


def test_new_line_replaces_the_old_one():
    """The file never has two lines of the stand."""
    assert plan_names(f"{OURS}\n{THEIRS}\n", ["other.slipway.invalid"]) == (
        f"{THEIRS}\n127.0.0.1 other.slipway.invalid # slipway's stand\n"
    )


def test_names_of_another_checkout_are_kept(tmp_path):
    """Checkouts that are up at the same time may need different names: they share the line."""
    path = tmp_path / "hosts"
    path.write_text(f"{THEIRS}\n{OURS}\n")
    add_names(["other.slipway.invalid", NAMES[0]], path)
    assert our_lines(path) == [f"127.0.0.1 {' '.join(NAMES)} other.slipway.invalid # slipway's stand"]
