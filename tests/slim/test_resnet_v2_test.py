"""Every case of tf_slim's own ``nets/resnet_v2_test.py``, with its numbers, on refnet alone.

tf_slim compares the values of dense and nominal features to 1e-4; here they are equal bit for bit.
"""

from typing import Any

import numpy as np
import pytest

import refnet


def create_input(batch_size: int, height: int, width: int, channels: int) -> np.ndarray:
    mesh = np.arange(height)[:, None] + np.arange(width)
    return np.tile(mesh[None, :, :, None], (batch_size, 1, 1, channels)).astype(np.float32)


def image(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.float32)[None, :, :, None]


VARIABLES = {
    "Conv/weights": create_input(1, 3, 3, 1).reshape(3, 3, 1, 1),
    "Conv/biases": np.zeros(1, np.float32),
}


class TestResnetUtils:
    @pytest.mark.parametrize(("size", "expected"), [(3, [[0, 2], [6, 8]]), (4, [[0, 2], [8, 10]])])
    def test_subsample(self, size: int, expected: list[list[int]]) -> None:
        x = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
        np.testing.assert_array_equal(refnet.subsample(x, 2), image(expected))

    def test_conv2d_same_even(self) -> None:
        x = create_input(1, 4, 4, 1)
        y1 = refnet.conv2d_same(x, 1, 3, stride=1, variables=VARIABLES)
        y1_expected = [[14, 28, 43, 26], [28, 48, 66, 37], [43, 66, 84, 46], [26, 37, 46, 22]]
        np.testing.assert_array_equal(y1, image(y1_expected))
        y2_expected = image([[14, 43], [43, 84]])
        np.testing.assert_array_equal(refnet.subsample(y1, 2), y2_expected)
        np.testing.assert_array_equal(refnet.conv2d_same(x, 1, 3, stride=2, variables=VARIABLES), y2_expected)
        # tf_slim's y4, a plain "SAME" convolution with stride 2, starts a pixel further in where the size is even.
        np.testing.assert_array_equal(y1[:, 1::2, 1::2], image([[48, 37], [37, 22]]))

    def test_conv2d_same_odd(self) -> None:
        x = create_input(1, 5, 5, 1)
        y1 = refnet.conv2d_same(x, 1, 3, stride=1, variables=VARIABLES)
        y1_expected = [
            [14, 28, 43, 58, 34],
            [28, 48, 66, 84, 46],
            [43, 66, 84, 102, 55],
            [58, 84, 102, 120, 64],
            [34, 46, 55, 64, 30],
        ]
        np.testing.assert_array_equal(y1, image(y1_expected))
        y2_expected = image([[14, 43, 34], [43, 84, 55], [34, 55, 30]])
        np.testing.assert_array_equal(refnet.subsample(y1, 2), y2_expected)
        np.testing.assert_array_equal(refnet.conv2d_same(x, 1, 3, stride=2, variables=VARIABLES), y2_expected)

    def test_end_points_v2(self) -> None:
        blocks = [refnet.resnet_v2_block("block1", 1, 2, 2), refnet.resnet_v2_block("block2", 2, 2, 1)]
        weights = refnet.random_weights(blocks, num_classes=None, include_root_block=False, scope="tiny")
        _, end_points = refnet.forward(
            weights, create_input(2, 32, 16, 3), blocks=blocks, include_root_block=False, end_points=True
        )
        convolutions = ("shortcut", "conv1", "conv2", "conv3")
        assert [name for name in end_points if name.endswith(convolutions)] == [
            "tiny/block1/unit_1/bottleneck_v2/shortcut",
            "tiny/block1/unit_1/bottleneck_v2/conv1",
            "tiny/block1/unit_1/bottleneck_v2/conv2",
            "tiny/block1/unit_1/bottleneck_v2/conv3",
            "tiny/block1/unit_2/bottleneck_v2/conv1",
            "tiny/block1/unit_2/bottleneck_v2/conv2",
            "tiny/block1/unit_2/bottleneck_v2/conv3",
            "tiny/block2/unit_1/bottleneck_v2/shortcut",
            "tiny/block2/unit_1/bottleneck_v2/conv1",
            "tiny/block2/unit_1/bottleneck_v2/conv2",
            "tiny/block2/unit_1/bottleneck_v2/conv3",
            "tiny/block2/unit_2/bottleneck_v2/conv1",
            "tiny/block2/unit_2/bottleneck_v2/conv2",
            "tiny/block2/unit_2/bottleneck_v2/conv3",
        ]

    @pytest.mark.parametrize("output_stride", [1, 2, 4, 8, None])
    def test_atrous_values_bottleneck(self, output_stride: int | None) -> None:
        sizes = [(1, 2, 2), (2, 2, 2), (4, 2, 2), (8, 2, 1)]
        blocks = [refnet.resnet_v2_block(f"block{i + 1}", *size) for i, size in enumerate(sizes)]
        nominal_stride = 8
        inputs = create_input(1, 30, 31, 3)
        weights = refnet.random_weights(blocks, num_classes=None, include_root_block=False)
        variables = {name.removeprefix("resnet_v2/"): value for name, value in weights.items()}
        output = refnet.stack_blocks_dense(inputs, blocks, output_stride, variables=variables)
        output = refnet.subsample(output, nominal_stride // (output_stride or nominal_stride))
        np.testing.assert_array_equal(output, self._stack_blocks_nondense(inputs, blocks, variables))

    @staticmethod
    def _stack_blocks_nondense(
        net: np.ndarray, blocks: list[refnet.Block], variables: dict[str, np.ndarray]
    ) -> np.ndarray:
        for block in blocks:
            for i, unit in enumerate(block.args):
                prefix = f"{block.scope}/unit_{i + 1}/"
                own = {name.removeprefix(prefix): v for name, v in variables.items() if name.startswith(prefix)}
                net = block.unit_fn(net, **unit, rate=1, variables=own)
        return net


# tf_slim's inputs count up to 640; refnet warns that such numbers look like raw pixels.
@pytest.mark.filterwarnings("ignore:Float images are taken as normalised")
class TestResnetCompleteNetwork:
    @staticmethod
    def resnet_small(inputs: np.ndarray, num_classes: int | None = None, **options: Any) -> Any:
        sizes = [(1, 3, 2), (2, 3, 2), (4, 3, 2), (8, 2, 1)]
        blocks = [refnet.resnet_v2_block(f"block{i + 1}", *size) for i, size in enumerate(sizes)]
        root = options.get("include_root_block", True)
        weights = refnet.random_weights(blocks, num_classes, include_root_block=root, scope="resnet")
        # tf_slim's is_training is True unless a test says otherwise.
        options = {"is_training": True, "spatial_squeeze": False} | options
        return refnet.forward(weights, inputs, blocks=blocks, end_points=True, **options)

    def test_classification_end_points(self) -> None:
        logits, end_points = self.resnet_small(create_input(2, 224, 224, 3), 10, global_pool=True)
        assert "resnet/logits" in end_points
        assert logits.shape == (2, 1, 1, 10)
        assert end_points["predictions"].shape == (2, 1, 1, 10)

    @pytest.mark.parametrize(
        ("size", "options", "sides"),
        [
            pytest.param(224, {}, (28, 14, 7, 7), id="classification"),
            pytest.param(321, {"global_pool": False}, (41, 21, 11, 11), id="fully_convolutional"),
            pytest.param(128, {"global_pool": False, "include_root_block": False}, (64, 32, 16, 16), id="rootless"),
            pytest.param(321, {"global_pool": False, "output_stride": 8}, (41, 41, 41, 41), id="atrous"),
        ],
    )
    def test_endpoint_shapes(self, size: int, options: dict[str, Any], sides: tuple[int, ...]) -> None:
        _, end_points = self.resnet_small(create_input(2, size, size, 3), 10, **options)
        found = {name: end_points[f"resnet/{name}"].shape for name in ("block1", "block2", "block3", "block4")}
        assert found == {
            f"block{i + 1}": (2, side, side, depth)
            for i, (side, depth) in enumerate(zip(sides, (4, 8, 16, 32), strict=True))
        }

    @pytest.mark.parametrize("output_stride", [4, 8, 16, 32, None])
    def test_atrous_fully_convolutional_values(self, output_stride: int | None) -> None:
        nominal_stride = 32
        inputs = create_input(2, 81, 81, 3)
        options = {"is_training": False, "global_pool": False}
        output, _ = self.resnet_small(inputs, **options, output_stride=output_stride)
        output = refnet.subsample(output, nominal_stride // (output_stride or nominal_stride))
        expected, _ = self.resnet_small(inputs, **options)
        np.testing.assert_array_equal(output, expected)

    @pytest.mark.parametrize(
        ("num_classes", "options", "shape"),
        [
            pytest.param(10, {}, (2, 1, 1, 10), id="unknown_batch_size"),
            pytest.param(None, {"global_pool": False}, (2, 3, 3, 32), id="unknown_height_width"),
            pytest.param(
                None, {"global_pool": False, "output_stride": 8}, (2, 9, 9, 32), id="atrous_unknown_height_width"
            ),
        ],
    )
    def test_sizes_that_are_known_only_when_the_images_come(
        self, num_classes: int | None, options: dict[str, Any], shape: tuple[int, ...]
    ) -> None:
        output, end_points = self.resnet_small(create_input(2, 65, 65, 3), num_classes, **options)
        assert output.shape == shape
        assert ("resnet/logits" in end_points) == (num_classes is not None)
