"""Errors with a name. Everything a caller can get wrong is a ValueError underneath."""


class InputError(ValueError):
    """A user's file or argument cannot be used.

    The message is one line: it names the thing, says what came and what was wanted.
    The command line prints it without a traceback and exits with code 2.
    """


class WorldNotReset(RuntimeError):
    """`World.step` was called before `World.reset`."""
