"""The pipelines without mistakes are the functions that they port, and every mistake shows in the pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.ports.mistakes import Mistake, Planted
from tests.ports.networks import smooth_images
from tests.ports.pixels import (
    Steps,
    arranged,
    array_cases,
    decoded,
    images_of,
    pixel_cases,
    resized,
    slim_v1,
    slim_v2,
    torchvision,
)
from tests.support.tensorflow import tensorflow

STEPS = {"TF-Slim V2": slim_v2(65), "TF-Slim v1": slim_v1(64), "torchvision": torchvision(64)}
RAW = smooth_images(1, 131, 168, 3, seed=9)[0]


def test_tf_slims_pipeline_for_inception() -> None:
    """By the functions that TF-Slim calls, in its order."""
    tf = tensorflow()
    x = tf.image.central_crop(tf.image.convert_image_dtype(RAW, tf.float32), 0.875)
    x = tf.compat.v1.image.resize_bilinear(x[None], (65, 65))
    np.testing.assert_allclose(images_of(RAW, slim_v2(65)), (x - 0.5) * 2, rtol=0, atol=16 * 2.0**-24)


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_every_mistake_shows_in_the_pixels(steps: Steps) -> None:
    right = images_of(RAW, steps)
    for mistake in pixel_cases(steps):
        wrong = images_of(RAW, steps, [mistake])
        assert wrong.shape == right.shape, mistake
        assert np.abs(wrong - right).max() > 1e-3 * np.abs(right).max(), mistake


def test_every_mistake_with_an_array_shows() -> None:
    x = images_of(RAW, slim_v2(64))
    np.testing.assert_array_equal(arranged(x, Planted([])), x)
    for mistake in array_cases():
        assert not np.array_equal(arranged(x, Planted([mistake])), x), mistake


def test_decoders_of_a_jpeg_differ_by_little_and_those_of_a_png_in_nothing() -> None:
    png, jpeg = io.BytesIO(), io.BytesIO()
    Image.fromarray(RAW).save(png, "PNG")
    Image.fromarray(RAW).save(jpeg, "JPEG", quality=90)
    np.testing.assert_array_equal(decoded(png.getvalue()), RAW)
    first = decoded(jpeg.getvalue()).astype(int)
    differences = {by: np.abs(decoded(jpeg.getvalue(), by) - first) for by in ("fast", "accurate", "plain chroma")}
    assert differences["fast"].any()
    assert differences["plain chroma"].any()
    assert all(np.median(difference) <= 2 for difference in differences.values())


def test_what_is_said_of_channels_and_crops() -> None:
    flat = np.broadcast_to(np.uint8([10, 100, 200]), (90, 120, 3))
    assert images_of(flat, slim_v1(64)).shape == (1, 64, 64, 3)
    np.testing.assert_allclose(
        images_of(flat, slim_v1(64))[0, 0, 0], np.float32([10, 100, 200]) - [123.68, 116.78, 103.94]
    )
    # The means stay where they are, and meet the other channels.
    reversed_ = images_of(flat, slim_v1(64), [Mistake("channels-reversed")])
    np.testing.assert_allclose(reversed_[0, 0, 0], np.float32([200, 100, 10]) - [123.68, 116.78, 103.94])
    ramp = np.broadcast_to(np.arange(160, dtype=np.uint8)[None, :, None], (80, 160, 3))
    whole = resized(ramp, Steps(64, "raw", "none"))
    np.testing.assert_array_equal(whole[0, [0, -1], 0], [0, 157.5])
    np.testing.assert_array_equal(resized(ramp, Steps(80, "raw", "shorter side", 80))[0, [0, -1], 0], [40, 119])
