"""Training steps a second: `jobs.train.loop` against a straightforward PyTorch script, in turn, in one run.

python -m benchmarks.train [--size 874x1164 --size 128x128] [--threads 2] [--steps 4] [--turns 5] [--h 16]

Both train the same recipe on the same frames from the same first weights, with as many threads and channels-last
memory. The loss of every step is compared: a training that is fast and another one is no result.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import in_turn, ratio, table
from benchmarks.train_plain import PlainTraining
from jobs.train.loop import StepRow, saliency_of, train
from jobs.train.model import Model
from jobs.train.objective import Surrogate
from jobs.train.recipe import Recipe
from kernels.devices import usable_cores

PAIRS = 4
# How far the losses may be apart, relative: those of one step by rounding, in the first steps; after them the means of
# one turn's steps. Sooner or later a last bit decides whether a weight is rounded to one int8 number or its neighbour,
# and from there on two trainings of one recipe are as far apart as this one weight makes them. The plain loop from
# first weights moved by 6e-8 of themselves is 0.8 to 5.9 % from itself within 186 steps of 128×128, and means of 31
# steps up to 4.4 % (four draws). So only the first steps can be compared to rounding; the means would show another
# training.
FIRST, CLOSE, LATER = 8, 1e-6, 1e-1


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.train")
    parser.add_argument("--size", action="append", help="ROWSxCOLUMNS of the frames; may be given more than once")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--steps", type=int, default=2, help="of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--h", type=int, default=16)
    args = parser.parse_args(argv)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start, torch {torch.__version__}")
    for size in args.size or ("874x1164", "256x256", "128x128"):
        height, width = (int(side) for side in size.split("x"))
        # A turn of small frames would be too short to time.
        steps = max(args.steps, min(100, args.steps * 874 * 1164 // (height * width) // 4))
        measure(height, width, args.h, args.threads, steps, args.turns)
    return 0


def measure(height: int, width: int, h: int, threads: int, steps: int, turns: int) -> None:
    # One turn warms up; it is not counted.
    recipe = Recipe(epochs=steps * (turns + 1), h=h, pairs=PAIRS, pairs_per_epoch=PAIRS, group=PAIRS)
    frames = pictures(height, width)
    ours = Ours(recipe, frames, threads, steps)
    torch.set_num_threads(threads)
    data = [
        (torch.from_numpy(o), torch.from_numpy(d), saliency_of(o, both=False))
        for o, d in zip(frames.original, frames.decoded, strict=True)
    ]
    plain = PlainTraining(recipe, data)
    used: dict[str, list[float]] = {"plain": [], "ours": []}
    times = in_turn(
        turns, plain=counted(used["plain"], lambda: plain.run(steps)), ours=counted(used["ours"], ours.turn)
    )
    ours.end()
    ours_losses, losses = np.array([row.value for row in ours.seen]), np.array(plain.losses)
    apart = np.abs(ours_losses / losses - 1)
    means = np.abs(ours_losses.reshape(-1, steps).mean(axis=1) / losses.reshape(-1, steps).mean(axis=1) - 1)
    first, later = apart[:FIRST].max(), means.max()
    if not (first <= CLOSE and later <= LATER):
        raise SystemExit(
            f"the losses are up to {first:.2g} apart in the first {FIRST} steps ({CLOSE:g} is allowed) and their means"
            f" over {steps} steps {later:.2g} ({LATER:g} is allowed): these are two trainings"
        )
    pixels = f"{width}×{height}, h{h}, {threads} threads, {PAIRS} pairs a step"
    table(
        f"{steps} training steps of {pixels}; losses {plain.losses[0]:.3f} to {plain.losses[-1]:.3f}, at most"
        f" {first:.1e} apart in the first {FIRST}; means over {steps} at most {later:.1e}, of {len(apart)} in all",
        [
            (
                name,
                f"{t.median * 1000:.0f}",
                t.spread,
                f"{ratio(times['plain'], t):.2f} times ({steps / t.median:.2f}/s)",
            )
            for name, t in times.items()
        ],
    )
    # What neighbours take from the clock they do not take from this; waiting threads that spin are in it.
    processor = {name: statistics.median(seconds[1:]) for name, seconds in used.items()}
    share = statistics.median(a / b for a, b in zip(used["plain"][1:], used["ours"][1:], strict=True))
    print(
        f"  processor time of a step: plain {processor['plain'] / steps * 1000:.1f} ms, ours"
        f" {processor['ours'] / steps * 1000:.1f} ms: {share:.2f} times"
    )


def counted(used: list[float], run: Callable[[], object]) -> Callable[[], object]:
    """The same, and the processor's seconds of it appended, all threads together."""

    def timed() -> None:
        began = time.process_time()
        run()
        used.append(time.process_time() - began)

    return timed


@dataclass(frozen=True)
class Pictures:
    """Frames with structure and their damaged copies: (n, 2, H, W, 3) uint8."""

    original: npt.NDArray[np.uint8]
    decoded: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.original)


def pictures(height: int, width: int) -> Pictures:
    """Waves and edges; the copies have lost every second pixel, and some of the value."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    found = []
    for _ in range(PAIRS * 2):
        waves = [np.sin(x * rng.uniform(0.02, 0.6) + y * rng.uniform(0.02, 0.6)) for _ in range(3)]
        edges = 60.0 * (np.sin(x / rng.uniform(9, 30)) * np.sin(y / rng.uniform(9, 30)) > 0)
        found.append(np.stack(waves, axis=-1) * 50 + edges[..., None] + 90 + rng.normal(0, 4, (height, width, 3)))
    exact = np.stack(found).reshape(PAIRS, 2, height, width, 3)
    original = np.clip(np.rint(exact), 0, 255).astype(np.uint8)
    coarse = exact[:, :, ::2, ::2].repeat(2, axis=2).repeat(2, axis=3)[:, :, :height, :width]
    return Pictures(original, np.clip(np.rint(coarse / 6) * 6, 0, 255).astype(np.uint8))


@dataclass
class Ours:
    """`train` in a thread of its own that is let go for some steps at a time; it is also its own hooks."""

    recipe: Recipe
    frames: Pictures
    threads: int
    steps: int
    seen: list[StepRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.go, self.gone = threading.Semaphore(0), threading.Semaphore(0)
        self.failed: list[BaseException] = []
        self.thread = threading.Thread(target=self._train)
        self.thread.start()

    def turn(self) -> None:
        self.go.release()
        self.gone.acquire()
        if self.failed:
            raise self.failed[0]

    def end(self) -> None:
        self.go.release()
        self.thread.join()

    def _train(self) -> None:
        self.go.acquire()
        try:
            train(
                Model(self.recipe, torch.device("cpu")),
                self.frames,
                Surrogate.of(self.recipe),
                self,
                threads=self.threads,
            )
        except BaseException as error:
            self.failed.append(error)
            self.gone.release()

    def rows(self, rows: Sequence[StepRow]) -> None:
        self.seen.extend(rows)

    def due(self, step: int) -> bool:
        if step % self.steps == 0:
            self.gone.release()
            self.go.acquire()
        return False

    def checkpoint(self, model: Model) -> None:
        pass

    def stopping(self) -> bool:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
