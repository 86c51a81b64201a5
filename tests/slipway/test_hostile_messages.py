"""Every message of ours is one line of printable characters, whatever words from outside it quotes."""

import inspect

import pytest
from hostile import assert_plain, bounded, json_values, texts
from hypothesis import given
from hypothesis import strategies as st

from slipway import errors
from slipway.dag.triggers.polling import describe_error
from slipway.errors import LONGEST_LINE, SlipwayError, one_line, plain_line
from slipway.strict_json import load_json
from slipway.verdict import Finding, Verdict

FAMILY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@given(st.sampled_from(FAMILY), texts)
def test_an_error_is_one_line(kind, text):
    """Whatever an error quotes, its message is one line: it goes to logs, to the UI and to terminals."""
    with bounded():
        assert_plain(str(kind(f"registry r.example: {text}. Next: ask its operator")))


@given(st.sampled_from([Verdict.wait, Verdict.passed, Verdict.failed, Verdict.inconclusive]), texts)
def test_a_verdict_is_one_line(make, text):
    """A verdict's reason is one line, also if it comes from a trigger's event or another task."""
    with bounded():
        assert_plain(str(Verdict(**make(f"pod/a: {text}").to_dict())))


@given(texts, texts)
def test_a_finding_is_one_line(said, then):
    """A finding of a preflight is one line."""
    finding = Finding(outcome="missing", said=f"project {said}", then=f"enable {then}")
    assert_plain(finding.said)
    assert_plain(finding.then)


@given(texts)
def test_words_of_others_are_one_line(text):
    """The words of a client, server or exception are one line, and never empty for an exception."""
    with bounded():
        assert one_line(text).isprintable()
        assert_plain(one_line(ValueError(text)))
        assert_plain(describe_error(ValueError(text)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\r\nlines\tand a tab", "two  lines and a tab"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("ünï 北京 🤗 $PATH", "ünï 北京 🤗 $PATH"),
    ],
)
def test_what_a_line_shows(text, shown):
    """Spaces for line ends, escapes for what a terminal or an eye would take for something else, all else as it is."""
    assert shown == plain_line(text)
    assert shown == str(SlipwayError(text))


def test_a_long_line_keeps_its_ends():
    """Of an endless message the beginning remains, which says where, and the end, which says what next."""
    shown = plain_line(f"registry r.example: {'x' * 10_000_000}. Next: ask its operator")
    assert len(shown) <= LONGEST_LINE + len(" … ")
    assert len(plain_line("\x1b" * 10_000_000)) <= LONGEST_LINE + len(" … ")
    assert shown.startswith("registry r.example: xxx")
    assert shown.endswith("xxx. Next: ask its operator")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, b"\xff", "", "nul", '"\ud800'])
def test_bad_json_is_a_value_error(text):
    """JSON that is nested too deeply, too long a number and bytes that are no text are ValueErrors, as is no JSON."""
    with bounded(), pytest.raises(ValueError, match=r"."):
        load_json(text)


@given(json_values)
def test_a_value_in_a_message_is_one_line(value):
    """A message that shows a value as Python writes it is one line too."""
    with bounded():
        assert_plain(str(SlipwayError(f"Param x: {value!r} is invalid")))
