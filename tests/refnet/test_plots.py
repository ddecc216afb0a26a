"""The pictures: what is in them, read from the SVG that matplotlib writes or from the figure itself."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import refnet
from refnet import plots
from refnet.cli import main
from refnet.errors import ConfigError, WeightsError
from tests.support.nets import lively_weights, small_blocks


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were written."""
    written: list[Figure] = []
    savefig = Figure.savefig

    def keep(figure: Figure, *args: object, **options: object) -> None:
        written.append(figure)
        savefig(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return written


def test_a_network_has_a_box_for_each_run_of_units(tmp_path: Path, figures: list[Figure]) -> None:
    plots.network("resnet_v2_50", tmp_path / "net.png")
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    # TF-Slim's: the last unit of blocks 1 to 3 strides; sizes and depths from its documentation.
    for text in ("2 units\n56x56x256", "unit 3\n28x28x256\nstride 2", "3 units\n28x28x512",
                 "unit 4\n14x14x512\nstride 2", "5 units\n14x14x1024", "unit 6\n7x7x1024\nstride 2",
                 "3 units\n7x7x2048", "conv1\n112x112x64\nconv 7x7/2",
                 "pool1\n56x56x64\nmax_pool 3x3/2"):  # fmt: skip
        assert text in texts, texts
    assert [text for text in texts if re.fullmatch(r"block\d|root|head", text)] == [
        "root", "block1", "block2", "block3", "block4", "head",
    ]  # fmt: skip


def test_feature_maps_are_the_channels_that_vary_most(tmp_path: Path, figures: list[Figure]) -> None:
    maps = np.zeros((5, 4, 6), np.float32)
    maps[0, 0, 4], maps[1, 2, 1], maps[..., 2] = 3, 2, 100
    plots.feature_maps(maps, tmp_path / "maps.png", channels=2)
    drawn = {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in figures[0].axes}
    assert list(drawn) == ["1", "4"]
    for channel, values in drawn.items():
        assert np.array_equal(values, maps[..., int(channel)])


def test_dense_features_lie_where_they_look(tmp_path: Path, figures: list[Figure]) -> None:
    image, features = np.zeros((33, 65, 3), np.float32), np.zeros((5, 9, 7), np.float32)
    features[2, 3] = 1
    plots.dense_features(image, features, tmp_path / "dense.png")
    _, over = figures[0].axes[2].images
    left, right, bottom, top = over.get_extent()
    height, width = np.asarray(over.get_array()).shape
    # The centre of the feature at row 2, column 3 is the pixel at row 2 * 8, column 3 * 8.
    assert left + (3 + 0.5) * (right - left) / width == pytest.approx(24)
    assert top + (2 + 0.5) * (bottom - top) / height == pytest.approx(16)
    assert np.unravel_index(np.asarray(over.get_array()).argmax(), (height, width)) == (2, 3)


def sheet(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array().filled(np.nan))


def test_kernels_of_three_channels_are_in_colour_with_one_scale(tmp_path: Path, figures: list[Figure]) -> None:
    weights = lively_weights()
    name = next(name for name in weights if name.endswith("/conv1/weights") and "block" not in name)
    kernels = weights[name]
    plots.kernels(weights, "conv1", tmp_path / "kernels.png", count=5)
    drawn, (height, width, _, outputs) = sheet(figures[0]), kernels.shape
    assert f"5 of {outputs} kernels" in figures[0].axes[0].get_title()
    assert drawn.shape == (2 * (height + 1) - 1, 3 * (width + 1) - 1, 3)
    largest = np.abs(kernels[..., :5]).max()
    for output in range(5):
        top, left = output // 3 * (height + 1), output % 3 * (width + 1)
        for y, x, colour in np.ndindex(height, width, 3):
            value = kernels[y, x, colour, output] / largest
            assert drawn[top + y, left + x, colour] == pytest.approx((1 + value) / 2)
    # The line between two tiles, and the place without one.
    assert (drawn[:, width] == 1).all()
    assert (drawn[height + 1 :, 2 * (width + 1) :] == 1).all()


@pytest.mark.parametrize("channel", [None, 0, 2])
def test_kernels_of_a_unit_are_of_one_input_channel(tmp_path: Path, figures: list[Figure], channel: int | None) -> None:
    weights = lively_weights()
    layer = "block1/unit_1/bottleneck_v2/conv2"
    (name,) = (name for name in weights if name.endswith(f"/{layer}/weights"))
    plots.kernels(weights, layer, tmp_path / "kernels.png", channel)
    kernels, drawn = weights[name], sheet(figures[0])
    assert f"input channel {channel or 0} of {kernels.shape[2]}" in figures[0].axes[0].get_title()
    assert np.nanmax(np.abs(drawn)) == 1
    tile = kernels[:, :, channel or 0, 0] / np.abs(kernels[:, :, channel or 0]).max()
    assert drawn[:3, :3] == pytest.approx(tile)
    assert np.isnan(drawn[:, 3]).all()


def test_of_a_deep_root_the_first_kernels_are_in_colour(tmp_path: Path, figures: list[Figure]) -> None:
    weights = refnet.random_weights(small_blocks(), root_depths=(3, 4, 5))
    for layer, colours in (("conv1_1", 3), ("conv1_2", 0)):
        plots.kernels(weights, layer, tmp_path / "kernels.png")
        assert sheet(figures[-1]).shape[2:] == ((colours,) if colours else ())


def test_kernels_without_a_number_cannot_be_drawn(tmp_path: Path) -> None:
    weights = dict(lively_weights())
    name = next(name for name in weights if name.endswith("/conv1/weights"))
    weights[name] = np.full_like(weights[name], np.nan)
    with pytest.raises(WeightsError, match=r"cannot be drawn: some values are infinite or NaN"):
        plots.kernels(weights, name.removesuffix("/weights"), tmp_path / "kernels.png")


@pytest.mark.parametrize("value", [0.0, 1e300, -1e-300])
def test_any_finite_values_can_be_drawn(tmp_path: Path, value: float) -> None:
    plots.feature_maps(np.full((2, 2, 1), value), tmp_path / "maps.png")
    plots.dense_features(np.full((2, 2, 1), value), np.full((1, 1, 1), value), tmp_path / "dense.png")


def test_the_command_draws_each_kind_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refnet.save_weights("w.npz", lively_weights())
    np.save("pixels.npy", refnet.seeded.random_images((1, 33, 33, 3)))
    for line in (
        "network w.npz {}.svg --size 33",
        "features w.npz {}.svg --image pixels.npy --end-point block1 --channels 3",
        "dense w.npz {}.svg --image pixels.npy --output-stride 4",
        "kernels w.npz {}.svg --layer conv1",
        "kernels w.npz {}.svg --layer block2/unit_1/bottleneck_v2/conv1 --channel 1 --count 3",
    ):
        for name in "ab":
            assert main(["plot", *line.format(name).split()]) == 0
        content = Path("a.svg").read_bytes()
        assert b"<svg" in content
        assert content == Path("b.svg").read_bytes()


def test_a_picture_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Image size is too large")

    monkeypatch.setattr(Figure, "savefig", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written: Image size is too large"):
        plots.feature_maps(np.zeros((2, 2, 1)), tmp_path / "maps.png")


def test_matplotlib_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs matplotlib, which is not installed: .*plots|matplotlib"):
        plots.feature_maps(np.zeros((2, 2, 1)), tmp_path / "maps.png")
