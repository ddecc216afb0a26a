"""Images on a CUDA device, as other libraries hold them."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.errors import InputError
from refnet.run.cuda import device_errors
from refnet_kernels.contract import BINARY32
from refnet_kernels.gpu.arrays import DeviceView, view_of
from refnet_kernels.gpu.device import DriverError, open_device


def device_images(images: Any, index: int, stream: Any) -> DeviceView:
    """Float32 images on the device, without a copy.

    Parameters
    ----------
    images : object with DLPack or ``__cuda_array_interface__``
    index : int
        The number of the device on which they should be.
    stream
        Later work on it waits for the work that made the images. None means the device's own.

    Returns
    -------
    DeviceView
        [N, H, W, C], or one image without the axis of the batch.

    Raises
    ------
    InputError
        They are elsewhere, are not float32 or not C-contiguous, or their library does not export them.
    DeviceError
        The driver failed.
    """
    with device_errors():
        opened = open_device(index)
        try:
            view = view_of(images, opened, opened.stream() if stream is None else stream)
        except DriverError:
            raise
        except Exception as error:
            # Whatever a library may raise: BufferError, mostly.
            raise InputError(
                f"The images ({type(images).__name__}) on a CUDA device cannot be read: {error}"
            ) from error
    if view.device != opened.index:
        raise InputError(
            f"The images are on the CUDA device {view.device}, and the network runs on {opened.index}: move them, or "
            f"make an Engine with device='cuda:{view.device}'.",
            expected=opened.index, found=view.device,
        )  # fmt: skip
    if view.dtype == np.uint8:
        raise InputError(
            "uint8 images are raw pixels, and these are prepared on the host: pass a NumPy array, or float32 images "
            "that are normalised.",
            expected="float32", found="uint8",
        )  # fmt: skip
    if view.dtype != BINARY32:
        raise InputError(
            f"Images on a CUDA device are float32, not {view.dtype}: convert them there first (.float() in PyTorch, "
            ".astype('float32') in CuPy).",
            expected="float32", found=str(view.dtype),
        )  # fmt: skip
    if not view.contiguous:
        raise InputError(
            f"Images on a CUDA device are C-contiguous, and these of shape {view.shape} have strides of {view.strides} "
            "elements: call .contiguous() in PyTorch, or ascontiguousarray in CuPy, first.",
            found=view.strides,
        )
    return view
