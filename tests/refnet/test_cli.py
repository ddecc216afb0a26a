import errno
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import refnet
from refnet.cli import _COMMANDS, convert, main, predict, summary
from refnet.cli.bench import products
from refnet.cli.console import printable
from refnet.network.architecture import Architecture
from refnet.network.resnet_v2 import network_blocks

DIGITS = Path(refnet.__file__).parent / "data" / "digits"
CHECKPOINT = str(DIGITS / "digits.ckpt")
GOLDENS = Path(__file__).parents[1] / "slim" / "goldens" / "digits_logits.npz"
#: A network of two small units: quick on every device.
BLOCKS = [refnet.resnet_v2_block("block1", base_depth=1, num_units=2, stride=1)]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "refnet", *map(str, arguments)]
    return subprocess.run(command, text=True, check=False, **{"capture_output": True, **options})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights and images, good and bad ones."""
    folder = tmp_path_factory.mktemp("files")
    weights = refnet.load_weights(CHECKPOINT, recipe=refnet.Recipe(32, 32, 1.0), labels=list("0123456789"))
    refnet.save_weights(folder / "digits.npz", weights)
    small = refnet.random_weights(BLOCKS, num_classes=3)
    refnet.save_weights(folder / "small.npz", small)
    refnet.save_weights(folder / "features.npz", refnet.random_weights(BLOCKS, num_classes=None))
    gone = "resnet_v2/postnorm/gamma"
    np.savez(folder / "lacks_gamma.npz", **{name: value for name, value in small.items() if name != gone})
    np.savez(folder / "nan.npz", **{**small, gone: np.full(4, np.nan, np.float32)})
    np.savez(folder / "foreign.npz", **{"features.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)})
    for index, image in enumerate(np.load(DIGITS / "held_out.npz")["images"][:3]):
        Image.fromarray(image).save(folder / f"digit{index}.png")
    (folder / "text.png").write_text("no picture")
    (folder / "text.ckpt").write_text("no weights")
    (folder / "empty.npz").touch()
    (folder / "three.txt").write_text("null\neins\nzwölf\n", encoding="utf-8")
    (folder / "latin1.txt").write_bytes("zwölf\n".encode("latin-1"))
    whole = (folder / "digits.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "no_checkpoint").mkdir()
    return folder


@pytest.fixture
def in_files(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(files)
    return files


# What is asked, the exit code, and words of the sentence that says what is wrong.
FAILURES = [
    ("predit x.png", 2, "invalid choice: 'predit'"),
    ("summary resnet_v2_50 --sise 3", 2, "unrecognized arguments: --sise 3"),
    ("summary --size 0 resnet_v2_50", 2, "'0' is not a whole number of 1 or more"),
    ("summary resnet_v2_51", 2, "the nearest networks are resnet_v2_50"),
    ("summary ResNet50", 2, "the nearest networks are resnet_v2_50"),
    ("predict digit0.png", 2, "required: --weights"),
    ("predict --weights digits.npz", 2, "required: IMAGE"),
    ("predict digit0.png --weights digits.npz --top 11", 2, "--top is 11, but the weights have 10 classes"),
    ("predict digit0.png --weights digits.npz --top -1", 2, "'-1' is not a whole number"),
    ("predict digit0.png --weights digits.npz --size 9 --width 9", 2, "leave out --height and --width"),
    ("predict digit0.png --weights digits.npz --central-fraction 1.5", 2, "'1.5' is not a number above 0"),
    ("predict digit0.png --weights digits.npz --central-fraction half", 2, "'half' is not a number above 0"),
    ("predict digit0.png --weights digits.npz --labels three.txt", 2, "3 labels, but the weights have 10 classes"),
    ("predict digit0.png --weights digits.npz --labels latin1.txt", 2, "latin1.txt cannot be read"),
    ("predict digit0.png --weights digits.npz --labels none.txt", 2, "No such file"),
    ("predict digit0.png --weights features.npz", 2, "have no logits"),
    ("predict digit0.png --weights digits.npz --threads 0", 2, "threads is 0"),
    ("predict digit0.png --weights digits.npz --threads -1", 2, "threads is -1"),
    ("predict digit0.png --weights digits.npz --threads 1000000", 2, "threads is 1000000"),
    ("predict digit0.png --weights digits.npz --threads a", 2, "invalid int value: 'a'"),
    ("convert digits.npz digits.npz", 2, "is the file to be converted"),
    ("convert digits.npz ./digits.npz --force", 2, "is the file to be converted"),
    ("convert digits.npz small.npz", 2, "pass --force"),
    ("convert digits.npz digits.h5", 2, "digits.h5; its name can end in .ckpt, .npz or .safetensors"),
    ("predict digit0.png --weights digits.npz --device cuda:99", 3, "CUDA device 'cuda:99' cannot be used"),
    ("demo --device tpu", 3, "no device 'tpu'"),
    ("summary none.npz", 4, "none.npz: no weights file or checkpoint"),
    ("summary no_checkpoint", 4, "holds no checkpoint"),
    ("summary text.ckpt", 4, "unknown format"),
    ("summary digit0.png", 4, "it is an image"),
    ("summary empty.npz", 4, "the file is empty"),
    ("summary cut.npz", 4, "cut.npz"),
    ("summary foreign.npz", 4, "features.0.conv1.weight"),
    ("summary lacks_gamma.npz", 4, "resnet_v2/postnorm/gamma (4,)"),
    ("summary nan.npz", 4, "resnet_v2/postnorm/gamma (4)"),
    ("convert none.npz out.npz", 4, "none.npz"),
    ("convert digits.npz no_folder/out.npz", 4, "No such file"),
    ("predict digit0.png --weights none.npz", 4, "none.npz"),
    ("predict digit0.png --weights lacks_gamma.npz --top 1 --size 9", 4, "resnet_v2/postnorm/gamma (4,)"),
    ("predict none.png --weights digits.npz", 5, "none.png: No such file"),
    ("predict text.png --weights digits.npz", 5, "text.png is not an image"),
    ("predict no_checkpoint --weights digits.npz", 5, "not a regular file"),
]


def sentences(err: str) -> list[str]:
    """What stderr says beside which recipe is used, what is done with images and what is compiled."""
    usual = ("refnet: recipe:", "refnet: note:", "refnet: compiling")
    return [line for line in err.splitlines() if not line.startswith(usual)]


@pytest.mark.usefixtures("in_files")
@pytest.mark.parametrize(("line", "code", "words"), FAILURES, ids=[line for line, *_ in FAILURES])
class TestFailures:
    def test_are_one_sentence_and_an_exit_code(self, run: Run, line: str, code: int, words: str) -> None:
        outcome = run(*line.split())
        assert outcome.code == code
        assert outcome.out == ""
        (sentence,) = sentences(outcome.err)
        assert sentence.startswith("refnet: error: ")
        assert words in sentence

    def test_are_objects_with_json(self, run: Run, line: str, code: int, words: str) -> None:
        outcome = run(*line.split(), "--json")
        assert outcome.code == code
        assert sentences(outcome.err) == []
        answer = json.loads(outcome.out)
        error = answer["error"] if "error" in answer else answer["images"][0]["error"]
        assert set(error) == {"type", "message", "tensor", "expected", "found"}
        assert words in error["message"]


@pytest.mark.usefixtures("in_files")
class TestJsonErrors:
    def test_name_the_tensor_and_what_was_expected(self, run: Run) -> None:
        error = json.loads(run("summary", "lacks_gamma.npz", "--json").out)["error"]
        assert error["type"] == "MissingTensorError"
        assert error["tensor"] == "resnet_v2/postnorm/gamma"
        assert error["expected"] == [4]

    def test_name_the_systems_errors(self, run: Run) -> None:
        assert json.loads(run("summary", "none.npz", "--json").out)["error"]["type"] == "FileNotFoundError"


@pytest.mark.parametrize(
    ("error", "code"), [(PermissionError, 4), (IsADirectoryError, 4), (FileNotFoundError, 4), (OSError, 4)]
)
def test_system_errors_about_weights(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[OSError], code: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error(errno.EACCES, "not today", "w.npz")

    monkeypatch.setattr("refnet.cli.options.load_weights", fail)
    outcome = run("summary", CHECKPOINT)
    assert outcome == (code, "", "refnet: error: w.npz: not today.\n")


def test_system_errors_about_images(run: Run, monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    def fail(path: str, *_: object) -> None:
        raise PermissionError(errno.EACCES, "not today", path)

    monkeypatch.setattr(predict, "load_image", fail)
    outcome = run("predict", "a.png", "--weights", files / "digits.npz")
    assert outcome.code == 5
    assert sentences(outcome.err) == ["refnet: error: a.png: not today."]


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(summary, "load", interrupt)
    assert run("summary", CHECKPOINT) == (130, "", "refnet: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_stops_a_long_prediction(files: Path) -> None:
    images = [str(files / "digit0.png")] * 5000
    command = [sys.executable, "-m", "refnet", "predict", *images, "--weights", str(files / "digits.npz")]
    with subprocess.Popen(
        [*command, "--device", "reference"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("refnet: recipe:")
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert sentences(err) == ["refnet: interrupted"]


class TestStdout:
    def test_closed_by_its_reader_is_no_error(self) -> None:
        command = f"{sys.executable} -m refnet summary resnet_v2_200 | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        header, code = done.stdout.splitlines()
        assert header.split()[0] == "layer"
        assert (code, done.stderr) == ("0", "")

    def test_closed_from_the_start_is_no_error(self) -> None:
        command = f"{sys.executable} -m refnet summary resnet_v2_50 >&-"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    def test_full_disk_is_an_error(self) -> None:
        with open("/dev/full", "w") as full:
            done = process("summary", "resnet_v2_50", capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1
        assert done.stderr == "refnet: error: standard output: No space left on device.\n"


def test_the_citation_is_of_this_version() -> None:
    citation = (Path(__file__).parents[2] / "CITATION.cff").read_text()
    assert f"\nversion: {refnet.__version__}\n" in citation


class TestVersion:
    def test_names_all_that_the_bits_depend_on(self, run: Run) -> None:
        from importlib.metadata import version

        outcome = run("--version")
        assert (outcome.code, outcome.err) == (0, "")
        python = sys.version.split()[0]
        for part in (refnet.__version__, "contract 1", f"numba {version('numba')}", f"numpy {np.__version__}", python):
            assert part in outcome.out

    def test_as_a_module(self) -> None:
        done = process("--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"refnet {refnet.__version__} ")


@pytest.mark.parametrize("command", ["", "demo", "predict", "summary", "convert"])
def test_help_has_examples(run: Run, command: str) -> None:
    outcome = run(*command.split(), "--help")
    assert outcome.code == 0
    assert f"refnet {command}" in outcome.out.partition("example")[2]


@pytest.mark.parametrize("command", [*_COMMANDS, "golden record", "golden check"])
def test_help_says_what_the_command_does(run: Run, command: str) -> None:
    paragraphs = run(*command.split(), "--help").out.split("\n\n")
    assert paragraphs[0].startswith(f"usage: refnet {command}")
    assert re.fullmatch(r"[A-Z][^.]*\.", paragraphs[1]), paragraphs[1]


@pytest.mark.parametrize("stream", ["pipe", "terminal"])
def test_colours_are_for_terminals_that_want_them(stream: str) -> None:
    """No escape sequences into a pipe; and with NO_COLOR no colours on a terminal."""
    command = [sys.executable, "-m", "refnet", "summary", "resnet_v2_50"]
    if stream == "pipe":
        assert "\x1b" not in subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return
    primary, secondary = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=secondary, env=environment) as running:
        os.close(secondary)
        said = b""
        with suppress(OSError):  # Linux says so where the other end is closed
            while piece := os.read(primary, 65536):
                said += piece
    os.close(primary)
    assert running.returncode == 0
    assert b"block4" in said
    assert re.findall(rb"\x1b\[[0-9;]*(?:3[0-9]|4[0-7]|9[0-7])[;m]", said) == []


def test_nothing_typed_gives_the_help(run: Run) -> None:
    outcome = run()
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("usage: refnet")
    assert "refnet demo" in outcome.err


def test_printable_escapes_what_moves_the_cursor() -> None:
    assert printable("zwölf \x1b[2J\r\udcff") == "zwölf \\x1b[2J\\r\\udcff"


def test_names_in_a_file_cannot_write_to_the_terminal(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"\x1b[2J": np.zeros(1, np.float32)})
    assert "\x1b" not in run("summary", tmp_path / "w.npz").err


@pytest.mark.usefixtures("in_files")
class TestPredict:
    def test_finds_what_tf_slim_finds(self, run: Run) -> None:
        logits = np.load(GOLDENS)["logits_float64"][:3]
        images = [f"digit{index}.png" for index in range(3)]
        answer = json.loads(run("predict", *images, "--weights", "digits.npz", "--json").out)
        assert [image["image"] for image in answer["images"]] == images
        for image, expected in zip(answer["images"], logits, strict=True):
            found = [prediction["class"] for prediction in image["predictions"]]
            assert found[0] == np.argmax(expected)
            assert image["predictions"][0]["label"] == str(np.argmax(expected))
            assert len(set(found)) == 5

    def test_says_what_becomes_of_images(self, run: Run, in_files: Path) -> None:
        """What is done with all of a kind once, what is left out of each."""
        pixels = np.full((8, 8, 4), 77, np.uint8)
        for name in ("clear.png", "clear.webp"):
            Image.fromarray(pixels).save(in_files / name)
        images = ["digit0.png", "clear.png", "digit1.png", "clear.webp"]
        lines = run("predict", *images, "--weights", "digits.npz").err.splitlines()
        notes = [line for line in lines if "note:" in line]
        assert notes == ["refnet: note: digit0.png is grey: its values are those of red, green and blue (said once)"]
        assert [line.split()[2] for line in lines if "warning:" in line] == ["clear.png", "clear.webp"]
        assert logging.getLogger("refnet.images").level == logging.NOTSET

    def test_an_image_on_stdin(self, run: Run, in_files: Path) -> None:
        command = [sys.executable, "-m", "refnet", "predict", "-", "--weights", str(in_files / "digits.npz"), "--json"]
        path = in_files / "digit1.png"
        piped = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=True)
        (image,) = json.loads(piped.stdout)["images"]
        assert image["image"] == "-"
        (expected,) = json.loads(run("predict", path, "--weights", "digits.npz", "--json").out)["images"]
        assert image["predictions"] == expected["predictions"]
        for given in ("", "<&- ", "< /dev/null "):
            shell = f"{'printf text | ' if not given else ''}{' '.join(command)} {given}"
            done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
            assert done.returncode == 5, done.stderr
            assert json.loads(done.stdout)["images"][0]["error"]["type"] == "InputError"

    def test_probabilities_are_the_engines_and_fall(self, run: Run, in_files: Path) -> None:
        answer = json.loads(run("predict", "digit1.png", "--weights", "digits.npz", "--top", 10, "--json").out)
        predictions = answer["images"][0]["predictions"]
        engine = refnet.Engine("digits.npz", threads=1)
        _, end_points = engine(refnet.load_image(in_files / "digit1.png"), end_points=["predictions"])
        probabilities = [prediction["probability"] for prediction in predictions]
        assert probabilities == [float(end_points["predictions"][p["class"]]) for p in predictions]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sorted(p["class"] for p in predictions) == list(range(10))

    def test_prints_a_table_an_image(self, run: Run) -> None:
        outcome = run("predict", "digit0.png", "digit1.png", "--weights", "digits.npz", "--top", 2)
        lines = [line.split() for line in outcome.out.splitlines()]
        assert lines[0] == ["digit0.png"]
        assert lines[1] == ["class", "label", "probability"]
        assert lines[2][0] == lines[2][1] == str(np.argmax(np.load(GOLDENS)["logits_float64"][0]))
        assert lines[5] == ["digit1.png"]
        assert len(lines) == 10

    def test_bad_images_do_not_lose_the_good_ones(self, run: Run) -> None:
        outcome = run("predict", "digit0.png", "text.png", "none.png", "digit1.png", "--weights", "digits.npz")
        assert outcome.code == 5
        assert [line for line in outcome.out.splitlines() if ".png" in line] == ["digit0.png", "digit1.png"]
        first, second = sentences(outcome.err)
        assert "text.png" in first
        assert "none.png" in second

    def test_bad_images_in_json(self, run: Run) -> None:
        outcome = run("predict", "text.png", "digit1.png", "--weights", "digits.npz", "--json")
        assert outcome.code == 5
        bad, good = json.loads(outcome.out)["images"]
        assert bad["error"]["type"] == "InputError"
        assert "predictions" in good

    def test_the_recipe_of_the_weights_can_be_changed(self, run: Run) -> None:
        weights = ("--weights", CHECKPOINT)
        plain = run("predict", "digit0.png", *weights, "--size", 32, "--central-fraction", 1, "--json")
        assert "recipe: central fraction 1.0, resized to 32 x 32" in plain.err
        stored = json.loads(run("predict", "digit0.png", "--weights", "digits.npz", "--json").out)
        assert [p["probability"] for p in json.loads(plain.out)["images"][0]["predictions"]] == [
            p["probability"] for p in stored["images"][0]["predictions"]
        ]
        wide = json.loads(run("predict", "digit0.png", *weights, "--height", 20, "--width", 40, "--json").out)
        assert wide["recipe"] == {
            "height": 20,
            "width": 40,
            "central_fraction": 0.875,
            "mode": "inception",
            "resize_side": None,
        }

    def test_labels_from_a_file(self, run: Run) -> None:
        options = ("--weights", "small.npz", "--labels", "three.txt", "--top", 3, "--size", 9, "--json")
        predictions = json.loads(run("predict", "digit0.png", *options).out)["images"][0]["predictions"]
        assert {p["class"]: p["label"] for p in predictions} == {0: "null", 1: "eins", 2: "zwölf"}

    def test_of_equal_probabilities_the_first_class_comes_first(self, run: Run, tmp_path: Path) -> None:
        weights = dict(refnet.random_weights(BLOCKS, num_classes=40))
        weights["resnet_v2/logits/weights"] = np.zeros_like(weights["resnet_v2/logits/weights"])
        np.savez(tmp_path / "even.npz", **weights)
        options = ("--weights", tmp_path / "even.npz", "--top", 40, "--size", 9, "--json")
        predictions = json.loads(run("predict", "digit0.png", *options).out)["images"][0]["predictions"]
        assert [p["class"] for p in predictions] == list(range(40))
        assert {p["probability"] for p in predictions} == {float(np.float32(1 / 40))}

    def test_the_reference_gives_the_same(self, run: Run) -> None:
        options = ("predict", "digit2.png", "--weights", "digits.npz", "--json", "--device")
        assert json.loads(run(*options, "reference").out) == json.loads(run(*options, "cpu").out)

    def test_warnings_are_plain_sentences(self, run: Run, tmp_path: Path) -> None:
        weights = refnet.random_weights(BLOCKS, num_classes=3)
        np.savez(tmp_path / "extra.npz", **weights, **{"resnet_v2/mean_rgb": np.zeros(3, np.float32)})
        options = ("--weights", tmp_path / "extra.npz", "--top", 1, "--size", 9)
        outcome = run("predict", "digit0.png", *options)
        assert outcome.code == 0
        assert "refnet: warning: 1 tensors are not part of the network: resnet_v2/mean_rgb" in outcome.err.splitlines()


class TestConvert:
    def test_keeps_every_bit_and_says_what_it_did(self, run: Run, tmp_path: Path) -> None:
        outcome = run("convert", CHECKPOINT, tmp_path / "w.npz")
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith(f"{tmp_path / 'w.npz'}: 110 tensors, 70,058 parameters\n")
        assert "classes: 10" in outcome.out
        checkpoint = refnet.load_weights(CHECKPOINT)
        with np.load(tmp_path / "w.npz") as written:
            for name, value in checkpoint.items():
                assert written[name].dtype == np.float32
                assert written[name].tobytes() == value.tobytes()

    def test_json(self, run: Run, tmp_path: Path) -> None:
        answer = json.loads(run("convert", CHECKPOINT, tmp_path / "w.npz", "--json").out)
        assert (answer["tensors"], answer["parameters"], answer["num_classes"]) == (110, 70_058, 10)
        assert answer["format"] == refnet.load_weights(CHECKPOINT).source

    @pytest.mark.parametrize("target", ["w.npz", "w.safetensors", "w.ckpt"])
    @pytest.mark.parametrize("source", ["a.npz", "a.safetensors", "a.ckpt"])
    def test_any_format_to_any_keeps_all(self, run: Run, tmp_path: Path, source: str, target: str) -> None:
        weights = refnet.load_weights(CHECKPOINT, recipe=refnet.Recipe(32, 30, 1.0), labels=list("0123456789"))
        refnet.save_weights(tmp_path / source, weights)
        assert run("convert", tmp_path / source, tmp_path / target)[::2] == (0, "")
        found = refnet.load_weights(tmp_path / target)
        assert found.keys() == weights.keys()
        assert all(found[name].tobytes() == weights[name].tobytes() for name in weights)
        assert (found.recipe, found.labels) == (weights.recipe, weights.labels)
        assert found.notes == []

    def test_report(self, run: Run, tmp_path: Path) -> None:
        weights = dict(refnet.random_weights(BLOCKS, 3))
        slot = "resnet_v2/conv1/weights/Momentum"
        changed = {"resnet_v2/conv1/biases": np.zeros(64, np.float64), slot: np.zeros(2, np.float32)}
        np.savez(tmp_path / "a.npz", **{**weights, **changed, "global_step": np.int64(3), "flag": np.True_})
        answer = json.loads(run("convert", tmp_path / "a.npz", tmp_path / "w.safetensors", "--json").out)
        assert answer["mapped"] == {name: name for name in weights}
        assert answer["extra"] == [slot]
        assert answer["converted"] == {"resnet_v2/conv1/biases": "float64"}
        assert answer["left_out"].keys() == {"global_step", "flag"}
        lines = run("convert", tmp_path / "a.npz", tmp_path / "w.ckpt").out.splitlines()
        assert lines[1:8] == [
            f"mapped: {len(weights)}", "added: 0", "missing: 0", "misshaped: 0",
            "extra: 1", "converted: 1", "left out: 2",
        ]  # fmt: skip

    def test_options_of_the_network_travel_and_are_told(self, run: Run, tmp_path: Path) -> None:
        options = {"batch_norm_epsilon": 1.001e-5, "pool_mode": "keras"}
        recipe = refnet.Recipe(224, 224, 1.0, "tf")
        weights = refnet.Weights(refnet.random_weights(BLOCKS, 3), options=options, recipe=recipe)
        refnet.save_weights(tmp_path / "a.npz", weights)
        out = run("convert", tmp_path / "a.npz", tmp_path / "w.ckpt", "--anyway").out
        for words in ("pool_mode: keras", "x / 127.5 - 1", "pool_mode='keras' (TF-Slim: 'slim')"):
            assert words in out
        answer = json.loads(run("convert", tmp_path / "w.ckpt", tmp_path / "w.npz", "--json").out)
        assert answer["options"] == options

    def test_notes_what_was_converted(self, run: Run, tmp_path: Path) -> None:
        weights = {name: value.astype(np.float16) for name, value in refnet.random_weights(BLOCKS, 3).items()}
        np.savez(tmp_path / "half.npz", **weights)
        out = run("convert", tmp_path / "half.npz", tmp_path / "w.npz").out
        assert out.count("was converted from float16 to float32") == len(weights)

    def test_without_force_the_file_stays(self, run: Run, tmp_path: Path) -> None:
        target = tmp_path / "w.npz"
        target.write_bytes(b"precious")
        assert run("convert", CHECKPOINT, target).code == 2
        assert target.read_bytes() == b"precious"
        assert run("convert", CHECKPOINT, target, "--force").code == 0
        assert refnet.load_weights(target).keys() == refnet.load_weights(CHECKPOINT).keys()

    def test_every_file_of_a_checkpoint_counts(self, run: Run, tmp_path: Path) -> None:
        for prefix in ("a.ckpt", "b.ckpt"):
            refnet.save_weights(tmp_path / prefix, refnet.random_weights(BLOCKS, 3))
        (tmp_path / "b.ckpt.index").unlink()
        assert (
            "b.ckpt.data-00000-of-00001 exists already" in run("convert", tmp_path / "a.ckpt", tmp_path / "b.ckpt").err
        )
        assert run("convert", tmp_path / "a.ckpt", tmp_path / "b.ckpt", "--force").code == 0
        for source in ("a.ckpt", "a.ckpt.index", "a.ckpt.data-00000-of-00001"):
            outcome = run("convert", tmp_path / source, tmp_path / "a.ckpt", "--force")
            assert (outcome.code, "is the file to be converted" in outcome.err) == (2, True)

    def test_a_link_to_the_source_is_the_source(self, run: Run, files: Path, tmp_path: Path) -> None:
        (tmp_path / "link.npz").symlink_to(files / "digits.npz")
        outcome = run("convert", files / "digits.npz", tmp_path / "link.npz", "--force")
        assert outcome.code == 2
        assert "is the file to be converted" in outcome.err

    def test_a_full_disk_leaves_nothing(self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(convert, "save_weights", full)
        outcome = run("convert", CHECKPOINT, tmp_path / "w.npz")
        assert outcome == (4, "", "refnet: error: No space left on device.\n")


def test_says_what_is_compiled_the_first_time(files: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "REFNET_CACHE": str(tmp_path)}
    options = ("predict", "digit0.png", "--weights", "small.npz", "--top", 1, "--size", 9)
    first, second = (process(*options, cwd=files, env=environment) for _ in range(2))
    assert first.stdout == second.stdout != ""
    assert "refnet: compiling conv_kernel ... (once on this machine)" in first.stderr.splitlines()
    assert "compiling" not in second.stderr


@pytest.mark.skipif(os.name != "posix", reason="terminals")
class TestTerminal:
    def run(self, files: Path, *arguments: object) -> tuple[str, str]:
        """Stdout, and what a terminal at stderr gets."""
        ours, theirs = os.openpty()
        try:
            done = process(
                *arguments, cwd=files, capture_output=False, stdout=subprocess.PIPE, stderr=theirs,
                env={**os.environ, "TERM": "xterm"},
            )  # fmt: skip
            return done.stdout, os.read(ours, 1 << 16).decode()
        finally:
            os.close(ours)
            os.close(theirs)

    def test_at_stderr_sees_progress_and_stdout_does_not(self, files: Path) -> None:
        images = ("digit0.png", "digit1.png")
        out, err = self.run(files, "predict", *images, "--weights", "digits.npz", "--json")
        assert [image["image"] for image in json.loads(out)["images"]] == list(images)
        assert "refnet: recipe:" in err
        assert "classifying" in err

    def test_at_stdout_gets_a_table_with_rules(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        lines = run("summary", CHECKPOINT).out.splitlines()
        assert set(lines[2].strip()) in ({"\u2500"}, {"-"})


class TestBench:
    def test_figures(self, run: Run, files: Path) -> None:
        outcome = run(
            "bench", files / "small.npz", "--size", "16", "--batch", "2", "--rounds", "3", "--threads", "2", "--json"
        )
        assert outcome.code == 0
        figures = json.loads(outcome.out)
        assert (figures["size"], figures["batch"], figures["threads"], figures["rounds"]) == (16, 2, 2, 3)
        assert 0 < figures["min_ms"] <= figures["median_ms"]
        assert figures["device"] == "cpu"

    def test_another_device(self, run: Run, files: Path) -> None:
        command = ("bench", files / "small.npz", "--size", "16", "--rounds", "1", "--device", "reference")
        figures = json.loads(run(*command, "--json").out)
        assert (figures["device"], figures["threads"]) == ("reference", None)
        rows = [line.split() for line in run(*command).out.splitlines()]
        assert ["device", "reference"] in rows
        assert not any(row[:1] == ["threads"] for row in rows)

    def test_other_bits_are_not_timed(self, run: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        call = refnet.Engine.__call__
        monkeypatch.setattr(refnet.Engine, "__call__", lambda self, images: call(self, images) * self._threads)
        outcome = run("bench", files / "small.npz", "--size", "16", "--rounds", "1", "--threads", "2")
        assert outcome.code != 0
        assert "One CPU thread gives other bits, so nothing is timed." in outcome.err

    def test_work_of_the_published_network(self) -> None:
        """6.96 GFLOP for resnet_v2_50 at 224 x 224, as others count it."""
        architecture = Architecture("resnet_v2_50", network_blocks("resnet_v2_50"), 1001, True, 3)
        assert round(2 * products(architecture, (1, 224, 224, 3)) / 1e9, 2) == 6.96
