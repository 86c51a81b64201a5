"""Hostile input for property-based tests, and the check of what must come of it: accepted, or refused in one line."""

import resource
import time
from contextlib import contextmanager
from copy import deepcopy

from hypothesis import strategies as st

from slipway.errors import SlipwayError

LIMIT_S = 1.0  # of processor time, for one input
LIMIT_KIB = 200 * 1024  # of memory, for all inputs of a test

NASTY = (
    "two\nlines", "\r\nSet-Cookie: a=b", "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x00", "\x7f", "\x9b31m", "\u2028", "\u202egnp.exe",
    "zero\u200bwidth", "\ud800", "\ufeff", "$PATH", "$(id)", "`id`", "; id", "'\"", "-n", "%s%n", "{0.__class__}", "../../etc/passwd",
    "ünï", "北京", "🤗", "NaN", "1e999", "9" * 5000, "x" * 8100, "\x1b" * 2100, "", " ",
)  # fmt: skip

texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=40),
    st.builds("{}{}{}".format, st.text(max_size=5), st.sampled_from(NASTY), st.text(max_size=5)),
)
numbers = st.one_of(st.integers(), st.sampled_from([2**63, -(2**200), 10**400]), st.floats())
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def _places(value, at=()):
    """The path of every value in a structure, the outermost first."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*at, key))


@st.composite
def mutated(draw, valid, values=json_values):
    """A valid structure in which one to three values are replaced, removed or added."""
    value = deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(_places(value))))
        if not place:
            if draw(st.integers(0, 9)) == 0:
                return draw(values)
            continue
        around = value
        for key in place[:-1]:
            around = around[key]
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if how == "replace":
            around[place[-1]] = draw(values)
        elif how == "remove":
            del around[place[-1]]
        elif isinstance(around, dict):
            around[draw(texts)] = draw(values)
        else:
            around.append(draw(values))
    return value


def assert_plain(text):
    """One line of printable characters, of a bounded length."""
    assert text.isprintable(), ascii(text)
    assert 0 < len(text) < 10_000


@contextmanager
def bounded():
    """The block takes less than LIMIT_S of processor time."""
    began_s = time.process_time()
    yield
    assert time.process_time() - began_s < LIMIT_S


def accept_or_refuse(call, *words, refusals=SlipwayError, **named):
    """What the call returns, or None if it refuses in one line; anything else that it raises is a failure."""
    with bounded():
        try:
            return call(*words, **named)
        except refusals as error:
            assert_plain(str(error))
            return None


def peak_kib():
    """The largest amount of memory that this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
