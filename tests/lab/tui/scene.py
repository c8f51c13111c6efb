"""A lab in the middle of its day, as a snapshot: for pictures and tests that must be the same at any time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core.home import Home
from core.journal.query import Attempt, Job, Sweep
from core.live import LiveAttempt
from core.states import AttemptState, JobState, LaneState
from lab.tui.facts import Detail, Holding, JournalFacts, LaneFact, Series, Snapshot, SweepFact, Usage, Want

NOW = 1_790_000_000.0
CLOCK = "14:03:22"
S = JobState


def job(id_: int, kind: str = "train", state: JobState = S.QUEUED, **more: Any) -> Job:
    began = more.pop("began", None)
    given: dict[str, Any] = {
        "spec": "d",
        "name": "",
        "params": {},
        "key": f"{id_:064x}",
        "cause": None,
        "reason": None,
        "priority": 0,
        "attempts": 0,
        "lane": None,
        "wish": None,
        "idem": None,
        "tags": (),
        "note": "",
        "submitted": NOW - 3600.0,
        "started": None if began is None else NOW - began,
        "ended": None,
        "undeclared": False,
        "rerun_of": None,
    }
    return Job(id=id_, kind=kind, state=state, **(given | more))


def news(**more: Any) -> LiveAttempt:
    given: dict[str, Any] = {
        "phase": "running",
        "beat": 40,
        "age_s": 0.4,
        "step": None,
        "done": None,
        "total": None,
        "note": "",
        "rss_mb": 812.0,
        "pid": 4242,
        "log_size": 900,
    }
    return LiveAttempt(**(given | more))


LOG = (
    "epoch 41: train loss 0.0612, 1.92 it/s",
    "epoch 41: PSNR 34.81 dB, SSIM 0.9417",
    "checkpoint 41000 sealed (18.2 MiB in 0.3 s)",
    "epoch 42: train loss 0.0588, 1.93 it/s",
    "λ = 1.2e-4, ‖∇‖ = 0.31, σ² = 0.0049",
    "epoch 42: PSNR 34.97 dB, SSIM 0.9431",
    "checkpoint 42000 sealed (18.2 MiB in 0.3 s)",
)


def curves() -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    xs = tuple(float(x) for x in range(0, 42_001, 250))
    wobble = [math.sin(x / 700) * 0.02 + math.sin(x / 190) * 0.012 for x in xs]
    loss = tuple(0.05 + 0.75 * math.exp(-x / 9000) + w for x, w in zip(xs, wobble, strict=True))
    psnr = tuple(35.2 - 14 * math.exp(-x / 8000) + 8 * w for x, w in zip(xs, wobble, strict=True))
    return {"loss": (xs, loss), "psnr": (xs, psnr), "lr": (xs, tuple(1e-3 * 0.5 ** (x / 20_000) for x in xs))}


def attempts() -> tuple[Attempt, ...]:
    def one(n: int, state: AttemptState, **more: Any) -> Attempt:
        given: dict[str, Any] = {
            "job": 412,
            "n": n,
            "lane": "bat00",
            "state": state,
            "nonce": "x",
            "grant": {"cores": 4, "gpus": [0]},
            "cause": None,
            "message": None,
            "exit_code": None,
            "pid": 4242,
            "boot": "b",
            "seconds": None,
            "cpu_s": None,
            "max_rss_mb": None,
            "placed": NOW - 7500,
            "started": NOW - 7500,
            "ended": None,
            "undeclared": (),
            "manifest": None,
        }
        return Attempt(**(given | more))

    lost = one(1, AttemptState.LOST, cause="lane-rebooted", message="the lane was rebooted", seconds=2810.0)
    return (lost, one(2, AttemptState.RUNNING, placed=NOW - 4330, started=NOW - 4330))


def scene() -> Snapshot:
    """Two running jobs, a sweep in the middle, a queue, held, failed and finished ones; a lane that is away."""
    sweep = Sweep(
        430, 1000, 1000, True, None, 20, (("shape", ("64", "128", "256")), ("backend", ("numba", "torch"))), True
    )
    counts = {S.SUCCEEDED: 611, S.FAILED: 3, S.RUNNING: 64, S.QUEUED: 322}
    reason = "max error 0.031 is above the floor 0.002 at (11, 64)"
    old = Sweep(210, 120, 120, True, None, None, (("seed", tuple(range(120))),), True)
    jobs = (
        job(412, state=S.RUNNING, name="postfilter-64ch", lane="bat00", attempts=2, began=4330.0, tags=("night",),
            params={"lr": 0.001, "channels": 64, "epochs": 100, "data": "kodak"}, reason="the lane was rebooted",
            cause="lane-rebooted"),
        job(425, "score", S.RUNNING, name="kodak24 against libaom", lane="local", attempts=1, began=312.0),
        job(428, "command", S.CANCELLING, name="./sync.sh --all", lane="mini", attempts=1, began=95.0),
        job(430, "kernel", S.RUNNING, name="parity grid", began=83.0, cells=1000, pooled=True, tags=("parity",)),
        *(job(1440 + i, "train", priority=2 if i == 0 else 0, name=f"ablation-{i:02d}", submitted=NOW - 600 - 7 * i)
          for i in range(9)),
        job(1460, "audit", name="claims of section 4"),
        job(1461, "dose", S.HELD, name="after the GPU is repaired", submitted=NOW - 86_400.0),
        job(401, "parity", S.FAILED, name="conv3x3 against the oracle", lane="local", attempts=1, began=5400.0,
            ended=NOW - 5200, cause="check-cannot-fail", reason="the negative control passed"),
        job(398, "train", S.FAILED, name="postfilter-128ch", lane="bat00", attempts=3, began=30_000.0,
            ended=NOW - 20_000, cause="memory", reason="above its memory grant of 16 GiB"),
        job(397, "command", S.CANCELLED, name="make figures", ended=NOW - 21_000, cause="cancelled"),
        job(210, "kernel", S.SUCCEEDED, name="seeds", began=40_000.0, ended=NOW - 39_000, cells=120, pooled=True),
        *(job(390 - i, "score", S.SUCCEEDED, name=f"tile {i}", lane="local", attempts=1, began=41_000.0 + i,
              ended=NOW - 40_900 - i) for i in range(14)),
    )  # fmt: skip
    live = {
        (412, 2): news(done=42_180.0, total=100_000.0, step=42_180, note="epoch 42 of 100", rss_mb=6100.0),
        (425, 1): news(done=17.0, total=24.0, note="kodim17"),
        (428, 1): news(phase="ending", age_s=250.0),
    }
    lanes = (
        LaneFact("local", LaneState.UP, transport="local", cores=16, memory_mb=64_000, device="Linux-x86_64",
                 heard_s=0.3, usage=Usage(71.0, 20_400.0, 64_000.0)),
        LaneFact("bat00", LaneState.UP, transport="ssh", cores=32, memory_mb=257_000, gpus=("RTX 4090", "RTX 4090"),
                 heard_s=0.6, usage=Usage(34.0, 61_000.0, 257_000.0, 93.0, 60.0)),
        LaneFact("mini", LaneState.UNREACHABLE, "no answer for 4m10s: connection timed out", transport="ssh", cores=8,
                 memory_mb=16_000, heard_s=250.0),
        LaneFact("molt", LaneState.DRAINING, "disk is full", transport="ssh", cores=12, memory_mb=32_000, heard_s=0.9),
    )  # fmt: skip
    facts = JournalFacts(
        jobs=jobs,
        waits={1460: (412, 430)},
        sweeps={430: SweepFact(sweep, counts, reason, 517), 210: SweepFact(old, {S.SUCCEEDED: 120})},
        counts={S.RUNNING: 3, S.CANCELLING: 1, S.QUEUED: 10, S.HELD: 1, S.SUCCEEDED: 389, S.FAILED: 7, S.CANCELLED: 2},
        holdings=(
            Holding("bat00", 412, 2, 4, 1),
            Holding("local", 425, 1, 2, 0),
            Holding("mini", 428, 1, 1, 0),
            Holding("local", 1045, 1, 8, 0, cells=64),
        ),
        done={"local": tuple((int(NOW) - 40 + i, 14) for i in range(40))},
        controller=({}, None),
    )
    detail = Detail(
        jobs[0],
        attempts(),
        None,
        (
            "job 412 is running: attempt 2 on bat00",
            "attempt 1 on bat00 was lost (lane-rebooted): the lane was rebooted",
            "the nearest earlier run is job 398 (failed); it differs in params.channels: 64 instead of 128",
        ),
        curves(),
        LOG,
    )
    return Snapshot("/home/ada/filters/.lab", NOW, facts, live, lanes, {430: 11.4, 412: 9.7}, detail, True)


def with_cells(snapshot: Snapshot) -> Snapshot:
    """The same with the cells of the sweep as its unfolding would read them."""
    states = [S.RUNNING] * 4 + [S.FAILED] * 3 + [S.QUEUED] * 20
    cells = []
    for i, state in enumerate(states):
        failed = {"cause": "error", "reason": "max error 0.031 is above the floor 0.002"} if state is S.FAILED else {}
        cells.append(
            job(431 + i, "kernel", state, name=f"shape={64 << i % 3} backend=numba seed={i}", sweep=430, pooled=True,
                lane="local" if state is S.RUNNING else None, attempts=int(state is not S.QUEUED), **failed)
        )  # fmt: skip
    return replace(snapshot, journal=replace(snapshot.journal, cells={430: tuple(cells)}))


BRANCHES = tuple(
    f"long{epochs}_qat_ema_alpha{alpha}_h{h}" for alpha in (10, 20) for h, epochs in ((16, 500), (32, 500), (16, 1000))
)


def with_branches() -> Snapshot:
    """A sweep of six trainings is selected: four run, one is through, one goes on after its lane was lost."""
    axes = (("alpha", (10.0, 20.0)), ("h", (16, 32)), ("epochs", (500, 1000)))
    counts = {S.RUNNING: 4, S.SUCCEEDED: 1, S.FAILED: 1}
    fact = SweepFact(Sweep(500, 6, 6, True, None, None, axes, True), counts, "not-finite: the loss is no number", 506)
    sweep = job(500, state=S.RUNNING, name="alpha×h×epochs 2×2×2", began=7200.0, cells=6)
    series = []
    for n, label in enumerate(BRANCHES):
        xs = tuple(float(x) for x in range(190, 9501 if n == 0 else 5900 - 500 * n, 190))
        values = tuple(4.2 - 0.2 * n + 9 * math.exp(-x / (900 + 250 * n)) + 0.15 * math.sin(x / 150 + n) for x in xs)
        steps = tuple(float(x) for x in range(1, int(xs[-1]), 19))
        training = tuple(4.5 - 0.2 * n + 10 * math.exp(-x / (800 + 250 * n)) for x in steps)
        curves = {"evaluation_value": (xs, values), "training_value": (steps, training)}
        state = S.SUCCEEDED if n == 0 else S.FAILED if n == 5 else S.RUNNING
        series.append(Series(501 + n, label, state, curves))
    snapshot = scene()
    facts = replace(
        snapshot.journal, jobs=(sweep, *snapshot.journal.jobs), sweeps={**snapshot.journal.sweeps, 500: fact}
    )
    return replace(snapshot, journal=facts, detail=Detail(sweep, sweep=fact, series=tuple(series)))


class Still:
    """Stands in for the reading thread: hands out what it is told to, and remembers what was wanted."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.wanted = Want()
        self.deliver: Callable[[Snapshot], None] = lambda _: None
        self.pokes = 0

    def __call__(self, home: Home, deliver: Callable[[Snapshot], None]) -> Any:
        self.deliver = deliver
        return self

    def start(self) -> None:
        self.give(self.snapshot)

    def give(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.deliver(snapshot)

    def want(self, want: Want) -> None:
        self.wanted = want

    def poke(self) -> None:
        self.pokes += 1

    def stop(self) -> None:
        pass
