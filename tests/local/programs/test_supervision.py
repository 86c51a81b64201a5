"""The supervisor's configuration, read back by its own reader's rules."""

import configparser
from pathlib import Path

import pytest

from local.programs.supervision import Program, Supervisor, render_config

SUPERVISOR = Supervisor(
    mark="1a2b3c4d",
    run=Path("/run/x"),
    logs=Path("/var/x/logs"),
    config=Path("/var/x/conf"),
    program=Path("/env/supervisord"),
    directory=Path("/srv"),
)


def read(programs):
    """The configuration's sections, comments stripped as the supervisor does."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(render_config(SUPERVISOR, programs))
    return parser


def test_every_process_carries_the_mark():
    """By the mark the processes of a killed supervisor are found."""
    assert read([])["supervisord"]["environment"] == 'SLIPWAY_STAND="1a2b3c4d"'


def test_program_is_restarted_and_started_only_when_told():
    """Restarts are on, starting by itself is off: `up` decides the order."""
    section = read([Program(name="etcd", command=("etcd", "--name=a"))])["program:etcd"]
    assert (section["command"], section["autostart"], section["autorestart"]) == ("etcd --name=a", "false", "true")
    assert section["stdout_logfile"] == "/var/x/logs/etcd.log"


def test_odd_words_survive():
    """Spaces are quoted, percent signs doubled, the user and environment named."""
    program = Program(name="p", command=("run", "two words", "50%"), user="postgres", environment={"KEY": "a%b"})
    section = read([program])["program:p"]
    assert section["command"] == 'run "two words" 50%%'
    assert (section["user"], section["environment"]) == ("postgres", 'KEY="a%%b"')


def test_double_quotes_are_refused():
    """The supervisor could not read such a command back."""
    with pytest.raises(ValueError, match="double quote"):
        render_config(SUPERVISOR, [Program(name="p", command=('say "x"',))])
