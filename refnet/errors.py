"""The exceptions that refnet raises, one for each case that a caller may want to handle separately.

``FileNotFoundError``, ``PermissionError`` and what else the system says about a file (``OSError``) pass through, and
name the file.
"""

from __future__ import annotations

from typing import Any


class RefnetError(Exception):
    """Base of every error that refnet raises on purpose.

    Parameters
    ----------
    message : str
        One plain sentence: what was wanted, what was found, what to do next.
    tensor : str, optional
        The tensor that the error is about.
    expected, found : object, optional
        The expected and the found value (a shape, a dtype, a name).
    """

    #: The exit code of the command line.
    exit_code = 1

    def __init__(self, message: str, *, tensor: str | None = None, expected: Any = None, found: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.tensor = tensor
        self.expected = expected
        self.found = found


class RefnetWarning(UserWarning):
    """Something is allowed but looks wrong; ``warnings.simplefilter`` can silence this, or make it an error."""


class WeightsError(RefnetError, ValueError):
    """A weights file, or a mapping of weights, cannot be used."""

    exit_code = 4


class FormatError(WeightsError):
    """The file has a format that refnet does not read, or is malformed."""


class MissingTensorError(WeightsError):
    """A tensor that the network needs is missing."""


class ShapeMismatchError(WeightsError):
    """A tensor has another shape than the network needs."""


class DtypeError(WeightsError):
    """A tensor has a dtype that cannot be used as binary32."""


class CorruptError(WeightsError):
    """The file is damaged: a checksum differs, or it is cut off."""


class LimitError(WeightsError):
    """The file, or the array, claims more memory than it can justify, or there is not enough memory for the weights."""


class InputError(RefnetError, ValueError):
    """The images cannot be used, or there is not enough memory for them."""

    exit_code = 5


class GoldenError(RefnetError, ValueError):
    """A golden file cannot be used: damaged, of another format, or of another arithmetic contract."""

    exit_code = 5


class DeviceError(RefnetError):
    """The device is missing, or cannot do what was requested; or there are too few threads."""

    exit_code = 3


class ConfigError(RefnetError, ValueError):
    """The options contradict each other, the weights or TF-Slim's rules."""

    exit_code = 2


class ImmutableError(RefnetError, AttributeError):
    """An attribute was set of an object that does not change; the message says what to call instead."""
