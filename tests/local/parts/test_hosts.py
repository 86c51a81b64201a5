"""The hosts file: what the stand adds for the emulator of Google, and what it leaves alone."""

from local.parts.hosts import add_names, our_lines, plan_names, remove_names

THEIRS = "127.0.0.1 localhost\n10.0.0.7 build  # the user's"
NAMES = ("compute.slipway.invalid", "serviceusage.slipway.invalid")
OURS = "127.0.0.1 compute.slipway.invalid serviceusage.slipway.invalid # slipway's stand"


def test_names_come_and_go_and_the_rest_stays(tmp_path):
    """One marked line is added, once, and the file is afterwards as it was, but for its last line's end."""
    path = tmp_path / "hosts"
    path.write_text(THEIRS)
    assert add_names(NAMES, path)
    assert add_names(NAMES, path)
    assert path.read_text() == f"{THEIRS}\n{OURS}\n"
    assert our_lines(path) == [OURS]
    remove_names(path)
    assert path.read_text() == f"{THEIRS}\n"


def test_left_alone_if_the_machine_knows_the_names(tmp_path):
    """A resolver that knows them needs no line: the file is not even read."""
    assert not add_names(["localhost"], tmp_path / "none")


def test_one_line_of_ours_whatever_was_there():
    """A line that is written anew takes the old one's place."""
    assert plan_names(f"{OURS}\n{THEIRS}\n", ["other.slipway.invalid"]) == (
        f"{THEIRS}\n127.0.0.1 other.slipway.invalid # slipway's stand\n"
    )


def test_another_checkouts_names_stay(tmp_path):
    """Checkouts that are up at the same time may need different names: the file is the machine's, and so is the line."""
    path = tmp_path / "hosts"
    path.write_text(f"{THEIRS}\n{OURS}\n")
    add_names(["other.slipway.invalid", NAMES[0]], path)
    assert our_lines(path) == [f"127.0.0.1 {' '.join(NAMES)} other.slipway.invalid # slipway's stand"]
