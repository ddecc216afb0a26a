import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refnet.cli import demo, demo_files, main

GOLDENS = np.load(Path(__file__).parents[1] / "slim" / "goldens" / "digits_logits.npz")


@pytest.fixture(scope="module")
def result() -> demo.Result:
    return demo.classify("cpu", 2)


def test_predictions_are_tf_slims(result: demo.Result) -> None:
    np.testing.assert_array_equal(result.predictions, np.argmax(GOLDENS["logits_float32"], axis=1))
    np.testing.assert_array_equal(result.predictions, np.argmax(GOLDENS["logits_float64"], axis=1))


def test_accuracy_is_the_one_of_training(result: demo.Result) -> None:
    # refnet/data/digits/README.md: 358 of 360, counted by TF-Slim.
    assert len(result.labels) == 360
    assert len(result.wrong) == 2


def test_probabilities_are_the_softmax_of_the_logits(result: demo.Result) -> None:
    # In binary64 and rounded once, so within half a unit in the last place of the true quotient, and a hair.
    logits = result.logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_array_max_ulp(
        result.probabilities, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), maxulp=1
    )


def test_sha256_is_that_of_the_little_endian_bytes(result: demo.Result) -> None:
    packed = b"".join(np.array(value, "<f4").tobytes() for row in result.logits for value in row)
    assert result.logits_sha256 == hashlib.sha256(packed).hexdigest()


def test_another_number_of_threads_gives_the_same_bits(result: demo.Result) -> None:
    assert demo.classify("cpu", 1).logits_sha256 == result.logits_sha256


def test_picture_shows_the_first_digits_and_a_wrong_one(result: demo.Result) -> None:
    lines = demo.picture(result).splitlines()
    assert len(lines) == 8 + 2
    assert all(len(line) <= 80 and line.isascii() for line in lines)
    index = result.wrong[0]
    assert lines[8].split()[-3:-1] == ["says", str(result.predictions[index])]
    assert lines[9].endswith(f"is {result.labels[index]}: wrong")
    assert lines[9].count("is ") == 5


def test_brighter_pixels_have_denser_characters(result: demo.Result) -> None:
    ramp = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) * 4
    block = demo._block(result._replace(images=ramp), 0)
    drawn = "".join(row[::2] for row in block[:8])
    assert [demo._SHADES.index(c) for c in drawn] == sorted(demo._SHADES.index(c) for c in drawn)
    assert set(drawn) == set(demo._SHADES)


def test_no_wrong_digit_is_invented(result: demo.Result) -> None:
    picture = demo.picture(result._replace(labels=result.predictions.astype(np.uint8)))
    assert "wrong" not in picture
    assert picture.count("says") == 5


class TestCommand:
    @pytest.fixture(autouse=True)
    def computed_once(self, result: demo.Result, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "classify", lambda device, threads: result)

    def test_prints_the_figures(self, capsys: pytest.CaptureFixture[str], result: demo.Result) -> None:
        assert main(["demo"]) == 0
        out = capsys.readouterr().out
        assert "358 of 360 = 99.44%" in out
        assert "images per second" in out
        assert result.logits_sha256 in out

    def test_json(self, capsys: pytest.CaptureFixture[str], result: demo.Result) -> None:
        assert main(["demo", "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (answer["images"], answer["correct"]) == (360, 358)
        assert answer["logits_sha256"] == result.logits_sha256
        assert answer["predictions"] == np.argmax(GOLDENS["logits_float64"], axis=1).tolist()
        assert answer["images_per_second"] > 0
        assert answer["first_call_seconds"] > 0

    def test_plot_writes_a_picture(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert main(["demo", "--plot", str(tmp_path / "digits.png")]) == 0
        assert capsys.readouterr().err == ""
        with Image.open(tmp_path / "digits.png") as picture:
            assert picture.width > 1000
            assert len(np.unique(np.asarray(picture.convert("L")))) > 16

    @pytest.mark.parametrize(
        ("name", "words"), [("digits.xyz", "can end in"), ("no/digits.png", "no such directory"), ("digits", "can end")]
    )
    def test_plot_refuses_what_it_cannot_write(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, words: str
    ) -> None:
        assert main(["demo", "--plot", str(tmp_path / name)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert words in captured.err

    def test_plot_without_matplotlib(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert main(["demo", "--plot", str(tmp_path / "digits.png")]) == 2
        assert "uv run --extra plots" in capsys.readouterr().err

    def test_save_writes_what_the_other_commands_take(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        folder = tmp_path / "new" / "play"
        assert main(["demo", "--save", str(folder)]) == 0
        out = capsys.readouterr().out
        named = [line.split()[0] for line in out.partition("written into")[2].splitlines() if line.startswith("  ")]
        files = {path.name for path in folder.iterdir()}
        assert files == {"digits.ckpt.index", "digits.ckpt.data-00000-of-00001", *named[1:15]} - {"refnet"}
        assert named[0] == "digits.ckpt"
        assert [line for line in out.splitlines() if line.startswith("  refnet ")] == [
            f"  {line}" for line in demo_files.NEXT.splitlines()
        ]
        # With its own recipe and labels, the network reads its pictures, all but those that it is known to get wrong.
        images = [str(folder / f"digit{digit}.png") for digit in range(10)]
        assert main(["predict", *images, "--weights", str(folder / "digits.ckpt"), "--top", "1", "--json"]) == 0
        answers = json.loads(capsys.readouterr().out)["images"]
        assert [int(answer["predictions"][0]["label"]) for answer in answers] == list(range(10))
        with np.load(Path(demo._DIGITS) / "held_out.npz") as held_out, Image.open(folder / "page.png") as page:
            pixels = np.asarray(page)[::4, ::4]
            assert page.size == (768, 480)
            np.testing.assert_array_equal(pixels[8:16, 16:24], held_out["images"][24 + 2])

    def test_save_as_json(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert main(["demo", "--json", "--save", str(tmp_path)]) == 0
        saved = json.loads(capsys.readouterr().out)["saved"]
        assert saved == [str(tmp_path / file.name) for file in demo_files.FILES]
        assert all(Path(f"{path}.index" if path.endswith(".ckpt") else path).exists() for path in saved)

    @pytest.mark.parametrize("there", ["digits.ckpt.index", "digit7.png", "theirs.npz"])
    def test_save_replaces_nothing(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, there: str) -> None:
        (tmp_path / there).write_text("mine")
        assert main(["demo", "--save", str(tmp_path)]) == 2
        assert f"has {there} already" in capsys.readouterr().err
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]
