"""Named errors. Every mistake a caller can make is a ValueError."""


class InputError(ValueError):
    """A user's file or argument cannot be used.

    The message is one line: the argument, the value that came, and what was wanted.
    The command line prints it without a traceback and exits with code 2.
    """


class CheckpointMismatch(InputError):
    """Weights do not fit the model they were meant for: tensors are missing, extra or misshapen."""


class NotEnoughMemory(InputError):
    """A model, or one step of it, does not fit the device; the message names a setting that fits."""


class GenerationFailed(RuntimeError):
    """A generator's output is not an image, for example NaN; the world is unchanged."""


class WorldNotReset(RuntimeError):
    """`World.step` was called before `World.reset`."""
