"""The error of the stand."""


class StandError(Exception):
    """A command of the stand failed. The message names the part, the reason and the next command."""
