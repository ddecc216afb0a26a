"""The exceptions that refnet raises, one for each case that a caller may want to handle separately.

``FileNotFoundError``, ``PermissionError`` and what else the system says about a file (``OSError``) pass through, and
name the file.

The docstrings are what ``refnet explain NAME`` prints, and the pages of the documentation.
"""

from __future__ import annotations

from typing import Any


class RefnetError(Exception):
    """Base of every error that refnet raises on purpose.

    Catch it to handle all of them; anything else is a mistake in refnet or in the program, and worth a report. Exit
    code 1, unless the kind has its own.

    **Cause.** What was asked for cannot be done. The kind says what is to blame: a file, an image, an option, a device.
    The command line raises this class itself where compiled kernels give other bits than the definition, and nothing is
    timed.

    **Cure.** The message says what was wanted, what was found and what to do next. If it is about bits, please report
    it.

    Parameters
    ----------
    message : str
        One plain sentence: what was wanted, what was found, what to do next.
    tensor : str, optional
        The tensor that the error is about.
    expected, found : object, optional
        The expected and the found value (a shape, a dtype, a name).

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> try:
    ...     refnet.forward(weights, images, output_stride=6)
    ... except refnet.RefnetError as error:
    ...     print(type(error).__name__, error.exit_code)
    ConfigError 2
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
    """Something is allowed but looks wrong.

    **Cause.** The call has a result, but is rarely what is meant: pixels from 0 to 255 for a network that takes -1 to
    1, say, or a tensor of the file that the network does not use. docs/homes.md lists what is warned of.

    **Cure.** Do what the message says. ``warnings.simplefilter`` with "ignore" silences it where it is meant, and with
    "error" makes an error of it.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> import warnings
    >>> warnings.simplefilter("error", refnet.RefnetWarning)
    >>> refnet.forward(weights, np.full((33, 33, 3), 200, np.float32))
    Traceback (most recent call last):
      ...
    refnet.errors.RefnetWarning: Float images are taken as normalised (-1 to 1), but these are 200 to 200, as raw ...
    """


class WeightsError(RefnetError, ValueError):
    """A weights file, or a mapping of weights, cannot be used.

    Exit code 4, for this class and its kinds: FormatError, MissingTensorError, ShapeMismatchError, DtypeError,
    CorruptError and LimitError.

    **Cause.** The file holds another network, or several and does not say which is meant, or layers that refnet does
    not run; or its values make no sense, as a variance below 0.

    **Cure.** docs/homes.md lists what refnet reads. ``refnet summary FILE`` says what it sees in a file, and
    ``scope=``, ``head=`` and ``blocks=`` choose.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> name = "resnet_v2/postnorm/moving_variance"
    >>> refnet.forward({**weights, name: -weights[name]}, images)
    Traceback (most recent call last):
      ...
    refnet.errors.WeightsError: resnet_v2/postnorm/moving_variance plus epsilon (1e-05) is 0 or negative in 16 of 16
    channels.
    """

    exit_code = 4


class FormatError(WeightsError):
    """The file has a format that refnet does not read, or is malformed.

    Exit code 4.

    **Cause.** The file breaks the rules of its format, or is of none that refnet reads. Formats are recognised by what
    is in a file, not by its name.

    **Cure.** Save the weights in a format of the list in docs/homes.md; for PyTorch a state dict, not a whole module.

    Examples
    --------
    >>> import pathlib, refnet
    >>> _ = pathlib.Path("notes.npz").write_text("a text")
    >>> refnet.load_weights("notes.npz")
    Traceback (most recent call last):
      ...
    refnet.errors.FormatError: notes.npz: the file is cut off, or it is of an unknown format. refnet reads ...
    """


class MissingTensorError(WeightsError):
    """A tensor that the network needs is missing.

    Exit code 4.

    **Cause.** Often the weights are without their head, or of another family; or the options ask for a layer that they
    do not have.

    **Cure.** ``num_classes=None`` runs a network without logits. Otherwise compare the names in the message with those
    in the file.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> tensors = dict(weights)
    >>> del tensors["resnet_v2/postnorm/beta"]
    >>> refnet.forward(tensors, images)
    Traceback (most recent call last):
      ...
    refnet.errors.MissingTensorError: The weights lack 1 of the network's tensors: resnet_v2/postnorm/beta (16,).
    """


class ShapeMismatchError(WeightsError):
    """A tensor has another shape than the network needs.

    Exit code 4.

    **Cause.** Convolution kernels are HWIO in refnet, and OIHW in PyTorch: a transposed kernel is the usual reason. All
    tensors with a wrong shape are listed at once.

    **Cure.** Let `refnet.load_weights` read the other framework's own file: it transposes by itself. Kernels of your
    own transpose to HWIO.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> name = "resnet_v2/block1/unit_1/bottleneck_v2/conv2/weights"
    >>> refnet.forward({**weights, name: weights[name].transpose(3, 2, 0, 1)}, images)
    Traceback (most recent call last):
      ...
    refnet.errors.ShapeMismatchError: resnet_v2/block1/unit_1/bottleneck_v2/conv2/weights should have shape
    (3, 3, 4, 4), but has (4, 4, 3, 3) (an OIHW kernel; transpose it to HWIO).
    """


class DtypeError(WeightsError):
    """A tensor has a dtype that cannot be used as binary32.

    Exit code 4.

    **Cause.** The tensor holds no real numbers, or numbers that lose digits when they become binary32.

    **Cure.** Convert the weights to float32, float16 or bfloat16 where they are saved.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> refnet.forward({**weights, "resnet_v2/logits/biases": np.zeros(10, complex)}, images)
    Traceback (most recent call last):
      ...
    refnet.errors.DtypeError: resnet_v2/logits/biases has dtype complex128; it must be a float dtype.
    """


class CorruptError(WeightsError):
    """The file is damaged: a checksum differs, or it is cut off.

    Exit code 4.

    **Cause.** A download or a copy that ended early, a bad disk, or a file that was replaced while it was read. Where
    a cut-off file can be recognised, the message says so.

    **Cure.** Download or copy it again, and compare its size and hash with those of the source.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> import pathlib
    >>> refnet.save_weights("net.safetensors", weights)
    >>> content = pathlib.Path("net.safetensors").read_bytes()
    >>> _ = pathlib.Path("net.safetensors").write_bytes(content[:-8])
    >>> refnet.load_weights("net.safetensors")
    Traceback (most recent call last):
      ...
    refnet.errors.CorruptError: net.safetensors: tensor ...: the file is cut off.
    """


class LimitError(WeightsError):
    """The file, or the array, claims more memory than it can justify, or there is not enough memory for the weights.

    Exit code 4.

    **Cause.** Files made to exhaust memory claim sizes that their bytes cannot hold; a compressed file of zeros looks
    the same. Or the machine, the container or ``ulimit`` leaves too little memory.

    **Cure.** Do not use a file from a stranger that gives this error (SECURITY.md); a file of your own save
    uncompressed. Where memory lacks, the message says how much is needed and how much there is.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> np.savez_compressed("zeros.npz", weights=np.zeros((5000, 5000), np.float32))
    >>> refnet.load_weights("zeros.npz")
    Traceback (most recent call last):
      ...
    refnet.errors.LimitError: zeros.npz: an archive of ... bytes claims to expand to 100000128; if its arrays really ...
    """


class InputError(RefnetError, ValueError):
    """The images cannot be used, or there is not enough memory for them.

    Exit code 5.

    **Cause.** Another number of channels or dimensions than the network takes, no numbers, not an image file, or too
    many pixels for the memory.

    **Cure.** Pass uint8 ``[H, W, 3]`` or float32 ``[N, H, W, C]``. A PyTorch array is ``[N, C, H, W]``: transpose it.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> refnet.forward(weights, np.zeros((1, 3, 33, 33), np.float32))
    Traceback (most recent call last):
      ...
    refnet.errors.InputError: Images of shape (1, 3, 33, 33) have 33 channels; the network takes 3. It looks like CHW:
    move the channels to the end.
    """

    exit_code = 5


class GoldenError(RefnetError, ValueError):
    """A golden file cannot be used: damaged, of another format, or of another arithmetic contract.

    Exit code 5.

    **Cause.** The file is not a golden, or not one of this version. Other weights than the recorded ones are a
    WeightsError, and other images an InputError. Bits that differ are not an error: they are a result, with exit code
    1.

    **Cure.** Record it again, with `refnet.golden.record` or ``refnet golden record`` (docs/goldens.md).

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> import pathlib
    >>> _ = pathlib.Path("golden.safetensors").write_text("a text")
    >>> refnet.golden.check("golden.safetensors", weights, images)
    Traceback (most recent call last):
      ...
    refnet.errors.GoldenError: golden.safetensors: ...
    """

    exit_code = 5


class DeviceError(RefnetError):
    """The device is missing, or cannot do what was requested; or there are too few threads.

    Exit code 3.

    **Cause.** The device does not exist, has no driver, or cannot do what was asked (float64 on a GPU, say); or the
    system gave fewer threads than were asked for.

    **Cure.** The message says what is missing, and how to install it. ``device="cpu"`` needs nothing. GPUs:
    docs/gpu.md.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> refnet.forward(weights, images, device="tpu")
    Traceback (most recent call last):
      ...
    refnet.errors.DeviceError: There is no device 'tpu'; the devices are 'cpu', 'reference', 'cuda', 'cuda:1' and so on.
    """

    exit_code = 3


class ConfigError(RefnetError, ValueError):
    """The options contradict each other, the weights or TF-Slim's rules.

    Exit code 2, as for a wrong command line.

    **Cause.** Options that cannot be used together; or an argument that is not of the kind that it must be. Where
    TF-Slim has an error for the case, the message is TF-Slim's.

    **Cure.** The message names the argument and what it can be.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((1, 33, 33, 3), np.float32)
    >>> refnet.forward(weights, images, output_stride=6)
    Traceback (most recent call last):
      ...
    refnet.errors.ConfigError: The output_stride needs to be a multiple of 4.

    A block that does not stride leaves the root block's output stride of 4, and no other can be reached:

    >>> refnet.forward(weights, images, output_stride=8)
    Traceback (most recent call last):
      ...
    refnet.errors.ConfigError: The target output_stride cannot be reached.
    """

    exit_code = 2


class ImmutableError(RefnetError, AttributeError):
    """An attribute was set of an object that does not change; the message says what to call instead.

    Exit code 1.

    **Cause.** Weights do not change, as an engine that was made from them rests on them.

    **Cure.** Make other weights with `refnet.Weights.replace`.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> weights.recipe = refnet.Recipe(224, 224)
    Traceback (most recent call last):
      ...
    refnet.errors.ImmutableError: Weights cannot be changed; make others with weights.replace(recipe=...).
    """
