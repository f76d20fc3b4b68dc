"""Errors with a name. Everything a caller can get wrong is a ValueError underneath."""


class InputError(ValueError):
    """A user's file or argument cannot be used.

    The message is one line: it names the thing, says what came and what was wanted.
    The command line prints it without a traceback and exits with code 2.
    """


class CheckpointMismatch(InputError):
    """Weights do not fit the model they were meant for: tensors are missing, extra or misshapen."""


class NotEnoughMemory(InputError):
    """A model, or one step of it, does not fit the device; the message names a setting that would."""


class GenerationFailed(RuntimeError):
    """A generator made something that is no picture, such as NaN; the world is as it was before the step."""


class WorldNotReset(RuntimeError):
    """`World.step` was called before `World.reset`."""
