"""Images per second of a job, beside the engine alone on decoded images and the decoder's share of the cores."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import refnet
from refnet.bulk import BATCH
from refnet.run.devices import check_threads
from tests.reliability.figures import Row


def write_photos(folder: Path, count: int, different: int = 50) -> None:
    """JPEGs of 500 x 375 pixels, smooth with some noise, of about 65 KB."""
    draw = np.random.default_rng(0)
    contents = []
    folder.mkdir()
    for _ in range(different):
        smooth = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(smooth).astype(int) + draw.integers(-12, 13, (375, 500, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / "photo.jpg", quality=90)
        contents.append((folder / "photo.jpg").read_bytes())
    (folder / "photo.jpg").unlink()
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(contents[number % different])


def per_image(run: Any, count: int) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / count


def speed(count: int, rounds: int = 3) -> list[Row]:
    weights = refnet.random_weights("resnet_v2_50", 1001, seed=0)
    weights = weights.replace(recipe=refnet.Recipe(224, 224), labels=None)
    predictor, cores = refnet.Predictor(weights), check_threads(None)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_photos(folder / "photos", count)
        paths = sorted((folder / "photos").iterdir())[:64]
        prepared: list[Any] = [predictor.prepared(path) for path in paths]
        batches = [prepared[start : start + BATCH] for start in range(0, len(prepared), BATCH)]
        predictor.outcomes(batches[0])
        engine, decode, job = [], [], []
        # In turn, as other programs come and go.
        for number in range(rounds):
            engine.append(per_image(lambda: [predictor.outcomes(batch) for batch in batches], len(prepared)))
            decode.append(per_image(lambda: [predictor.prepared(path) for path in paths], len(paths)))
            out = folder / f"out{number}"
            job.append(per_image(lambda out=out: refnet.batch(folder / "photos", weights, out), count))
            engine.append(per_image(lambda: [predictor.outcomes(batch) for batch in batches], len(prepared)))
    one, other, all_ = (float(np.median(times)) for times in (engine, decode, job))
    possible = one + other / cores
    return [
        Row("the engine alone, on decoded images", count, f"{1 / one:.1f} per second, {1e3 * one:.1f} ms each"),
        Row("reading, decoding and preparing alone, one thread", count, f"{1e3 * other:.1f} ms each"),
        Row(f"what {cores} cores can do of both", count, f"{1 / possible:.1f} per second"),
        Row("refnet batch", count, f"{1 / all_:.1f} per second: {possible / all_:.3f} of that"),
    ]


def long() -> list[Row]:
    return speed(2000)
