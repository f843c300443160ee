"""The one kind of error that a user is meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: which file or key, what was expected, what was found, what to do. On the command line it
    is shown without a traceback (see :func:`disinr_monai.bundle.start`). Line breaks of a quoted value become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in str(message).splitlines()))


def at_least(key: str, value: float, minimum: float) -> None:
    """Check a number from a config.

    Raises:
        InputError: it is smaller, or no number.
    """
    if isinstance(value, str) or not value >= minimum:
        raise InputError(f"{key}: expected a number of at least {minimum}, found {value!r}")
