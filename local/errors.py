"""What can go wrong with the stand: one error, whose message says where, what and what next."""


class StandError(Exception):
    """The stand cannot go on; the message names the part, the reason and the next command."""
