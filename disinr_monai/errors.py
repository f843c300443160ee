"""Errors of user input, in one readable line."""

import math
import numbers


class InputError(ValueError):
    """Error in a file or setting that the user gave.

    The message is one line: which file or key, what was expected, what was found, what to do. On the command line it
    is shown without a traceback (see :func:`disinr_monai.bundle.start`). Line breaks of a quoted value become spaces.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in str(message).splitlines()))


def at_least(key: str, value: float, minimum: float, maximum: float = math.inf, whole: bool = False) -> None:
    """Check a number from a config.

    Args:
        key: its name.
        value: what was given.
        minimum: the smallest that makes sense.
        maximum: upper bound, chosen so that larger values cannot be intended.
        whole: only whole numbers.

    Raises:
        InputError: outside these, not finite, or no number.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and minimum <= value <= maximum and not (whole and value != int(value)):
        return
    kind = "a whole number" if whole else "a number"
    wanted = f"of at least {minimum}" if maximum == math.inf else f"from {minimum} to {maximum}"
    raise InputError(f"{key}: expected {kind} {wanted}, found {value!r}")
