"""The supervisor's configuration, read back as the supervisor reads it."""

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
    """The sections of the configuration, without comments, as the supervisor strips them."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(render_config(SUPERVISOR, programs))
    return parser


def test_every_process_has_the_mark():
    """The mark identifies the processes of a supervisor that was killed."""
    assert read([])["supervisord"]["environment"] == 'SLIPWAY_STAND="1a2b3c4d"'


def test_program_restarts_but_does_not_start_by_itself():
    """`autorestart` is on and `autostart` is off: `up` starts the programs in order."""
    section = read([Program(name="etcd", command=("etcd", "--name=a"))])["program:etcd"]
    assert (section["command"], section["autostart"], section["autorestart"]) == ("etcd --name=a", "false", "true")
    assert section["stdout_logfile"] == "/var/x/logs/etcd.log"


def test_special_characters_are_escaped():
    """Spaces are quoted and percent signs doubled; user and environment are set."""
    program = Program(name="p", command=("run", "two words", "50%"), user="postgres", environment={"KEY": "a%b"})
    section = read([program])["program:p"]
    assert section["command"] == 'run "two words" 50%%'
    assert (section["user"], section["environment"]) == ("postgres", 'KEY="a%%b"')


def test_double_quotes_are_refused():
    """The supervisor could not parse such a command."""
    with pytest.raises(ValueError, match="double quote"):
        render_config(SUPERVISOR, [Program(name="p", command=('say "x"',))])
