"""The kind `train`: the recipe of a long training, on photographs or the user's frames, to the int8 weights that ship.

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.errors import BadInput
from core.kind import Absent, Context, Kind, Measure, Params, Question, Ranking

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.train.data.av1 import Settings
    from jobs.train.data.clip import Clip
    from jobs.train.recipe import Recipe

# Names of its inputs.
SOURCE, EVALUATION, START, CHECKOUT = "source", "evaluation_source", "start", "checkout"


class TrainParams(Params):
    """See each field. The recipe's defaults are the seed's; `jobs.train.recipe.DEVIATIONS` says where one is not."""

    epochs: int = Field(500, description="of the whole training")
    alpha: float = Field(20.0, description="how far saliency takes the weight off the sal term")
    h: int = Field(16, description="hidden channels of the filter")
    pairs: int = Field(600, description="pairs of frames that there are")
    pairs_per_epoch: int = Field(75, description="pairs that an epoch sees")
    group: int = Field(4, description="pairs whose gradients make one step")
    divide_by_own_length: bool = Field(True, description="a short group is a mean over its own pairs; seed: false")
    rate: float = Field(5e-4, description="Adam's, before the schedule")
    beta1: float = Field(0.9, description="Adam's")
    beta2: float = Field(0.999, description="Adam's")
    epsilon: float = Field(1e-8, description="Adam's")
    clip: float = Field(0.5, description="the largest norm that a gradient keeps")
    decay: float = Field(0.997, description="of the average of the weights")
    cut_largest: bool = Field(False, description="no gradient for each tensor's largest weight; seed: true")
    sal_both_frames: bool = Field(False, description="the sal term is over both frames of a pair")
    sal_weight: float = Field(0.1, description="of the sal term")
    seed: int = Field(0, description="of the order of the pairs")
    weights_seed: int = Field(0, description="of the first weights")

    seg_weight: float = Field(100.0, description="of the seg term; objective=upstream")
    pose_weight: float = Field(10.0, description="of the pose term; objective=upstream")
    pose_epsilon: float = Field(1e-8, description="under the root of the pose term; objective=upstream")

    objective: Literal["surrogate", "upstream"] = Field(
        "surrogate", description="what is made small; a value of it is no score. upstream: by a checkout's networks"
    )
    checkout: str | None = Field(None, description="folder of the challenge's checkout; objective=upstream")
    device: Literal["cpu", "cuda"] = Field("cpu", description="cuda needs --gpus 1")

    source: str | None = Field(None, description="a video or a folder of PNG files to train on [photographs]")
    evaluation_source: str | None = Field(None, description="a video or folder for the fixed pairs [photographs]")
    photographs: list[str] | None = Field(None, description="names of photographs, held out ones too [all]")
    held_out: list[str] | None = Field(None, description="photographs for the fixed pairs [drawn by split_seed]")
    held_out_count: int = Field(4, ge=1, description="how many are drawn, where none are named")
    split_seed: int = Field(0, ge=0, description="of that draw")
    data_seed: int = Field(0, ge=0, description="of the pans over the photographs")
    speed: float = Field(3.0, ge=0, le=64, description="pixels that a pan moves from frame to frame, at most")
    width: int = Field(1164, ge=16, le=8192, multiple_of=2, description="of a frame of a photograph's pan")
    height: int = Field(874, ge=16, le=8192, multiple_of=2, description="of a frame of a photograph's pan")
    evaluation_pairs: int = Field(8, ge=1, description="fixed pairs, on which candidates are measured")

    crf: int = Field(34, ge=1, le=63, description="the encoder's quality, 1 is best")
    grain: int = Field(22, ge=0, le=50, description="the encoder's film grain; 0: none")
    preset: int = Field(6, ge=0, le=13, description="the encoder's, 0 is slowest")
    keyint: int = Field(-1, ge=-1, le=100_000, description="frames between key frames; -1: only the first")
    sharpness: int = Field(1, ge=-7, le=7, description="the encoder's")
    encoded_width: int | None = Field(None, ge=16, le=8192, multiple_of=2, description="[522/1164 of the width]")
    encoded_height: int | None = Field(None, ge=16, le=8192, multiple_of=2, description="[392/874 of the height]")

    candidate_epochs: int = Field(10, ge=1, description="epochs from one candidate to the next; the last is always one")
    checkpoint_epochs: int = Field(10, ge=1, description="epochs from one checkpoint to the next")
    checkpoint_seconds: float = Field(300.0, ge=0, description="seconds after which one is due; 0: after every step")
    keep_checkpoints: int = Field(3, ge=2, description="the newest so many stay; an older one goes when they verify")
    preview: bool = Field(True, description="a short video of a sequence that was held out")
    start: str | None = Field(None, description="a checkpoint's folder of another training, to start from")
    mode: Literal["exact", "model-only", "reset-rate"] = Field("exact", description="what is taken of `start`")
    cache: str | None = Field(None, description="where encoded data is kept [~/.cache/lab/encoded]")

    @field_validator("source", "evaluation_source", "start", "cache", "checkout")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    @model_validator(mode="after")
    def _goes_together(self) -> TrainParams:
        self.recipe()  # refuses what it cannot use, by a ValueError that names it
        fields = type(self).model_fields
        photographs = self.source is None or self.evaluation_source is None
        useless = {
            "photographs": not photographs,
            "held_out": self.evaluation_source is not None and self.source is not None,
            "held_out_count": self.held_out is not None or not photographs,
            "split_seed": self.held_out is not None or not photographs,
            "data_seed": not photographs,
            "speed": not photographs,
            "width": self.source is not None,
            "height": self.source is not None,
            "mode": self.start is None,
            **dict.fromkeys(("checkout", "seg_weight", "pose_weight", "pose_epsilon"), self.objective != "upstream"),
        }
        for name in (n for n, idle in useless.items() if idle and getattr(self, n) != fields[n].default):
            raise ValueError(f"{name} means nothing with the other parameters that are given: leave it out")
        if self.objective == "upstream" and self.checkout is None:
            raise ValueError("objective=upstream needs checkout=FOLDER, a checkout of the challenge")
        if (self.encoded_width is None) != (self.encoded_height is None):
            raise ValueError("give both encoded_width and encoded_height, or neither")
        return self

    def recipe(self) -> Recipe:
        """The recipe. Raises RecipeRefused for a value that it cannot use."""
        from dataclasses import fields

        from jobs.train.recipe import Recipe

        own = type(self).model_fields
        return Recipe(**{f.name: getattr(self, f.name) for f in fields(Recipe) if f.name in own})

    def settings(self, width: int, height: int) -> Settings:
        """Of the encoder, for frames of this size."""
        from jobs.train.data.av1 import Settings, reduced

        if self.encoded_width is not None and self.encoded_height is not None:
            size = self.encoded_width, self.encoded_height
        else:
            size = reduced(width, height)
        return Settings(*size, self.crf, self.preset, self.grain, self.keyint, self.sharpness)

    @property
    def candidates(self) -> list[int]:
        """After how many epochs there is a candidate."""
        every = range(self.candidate_epochs, self.epochs, self.candidate_epochs)
        return [*every, self.epochs]


class Train(Kind):
    """See the module."""

    name: ClassVar[str] = "train"
    summary: ClassVar[str] = "a long quantisation-aware training of the postfilter, and the int8 weights that ship"
    Params: ClassVar[type[Params]] = TrainParams
    code: ClassVar[tuple[str, ...]] = ("core", "kernels", "jobs.train", "jobs.train_kind", "jobs.score.checkout")
    packages: ClassVar[tuple[str, ...]] = ("torch", "numpy", "scipy", "scikit-image", "av", "pillow")
    needs: ClassVar[Mapping[str, Any]] = {"role": "train"}
    described: ClassVar[tuple[str, ...]] = ("epochs", "alpha", "h")

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.train.schema import CANDIDATES, TRAINING

        return {"candidates": CANDIDATES, "training": TRAINING}

    def questions(self) -> Mapping[str, Question]:
        return {
            "branches": Question(
                "what each branch would ship, measured on fixed pairs",
                "SELECT t.branch, t.quantity, t.chosen_epoch, c.evaluation_value, c.psnr, c.psnr - d.psnr AS gain_db, "
                "c.ms_ssim, c.ms_ssim - d.ms_ssim AS gain_ms_ssim, t.bundle_bytes, t.evaluation_sha256, t.job "
                "FROM (SELECT * FROM training WHERE {jobs}) t JOIN candidates c ON c.job = t.job AND c.chosen "
                "JOIN candidates d ON d.job = t.job AND d.weights = 'decoded' "
                "ORDER BY t.evaluation_sha256, t.quantity, t.value_sha256, c.evaluation_value",
            ),
        }

    def ranking(self) -> Ranking:
        # What ships, on fixed pairs: values of step rows are no part of a table, and so of no ranking.
        return Ranking(
            "SELECT t.job, t.branch AS name, t.settings_sha256, c.evaluation_value, c.psnr, t.value_sha256, "
            "t.evaluation_sha256, 'evaluation value of the int8 weights (' || t.quantity || ', alpha ' || "
            "regexp_extract(t.branch, 'alpha(.+)_h', 1) || ')' AS value_label, "
            "'PSNR of the int8 weights, dB' AS psnr_label "
            "FROM (SELECT * FROM training WHERE {jobs}) t JOIN candidates c ON c.job = t.job AND c.chosen",
            (
                Measure(
                    "evaluation_value",
                    "value_label",
                    "value_sha256",
                    "values of another objective, another alpha or other fixed pairs are other quantities",
                ),
                Measure(
                    "psnr",
                    "psnr_label",
                    "evaluation_sha256",
                    "on other fixed pairs a PSNR says nothing about these",
                    greater=True,
                ),
            ),
            "settings_sha256",
        )

    def figure(
        self, out: BinaryIO, form: str, tables: Mapping[str, pa.Table], absent: Sequence[Absent], title: str
    ) -> Sequence[str]:
        from jobs.train.branches import draw

        return draw(out, form, tables, absent, title)

    def describe(self, params: TrainParams) -> str:
        return params.recipe().name

    def inputs(self, params: TrainParams) -> dict[str, Path]:
        """The user's frames and the start, looked into now: what cannot be used is refused before anything starts."""
        from jobs.train.data.source import open_source

        named = {SOURCE: params.source, EVALUATION: params.evaluation_source, START: params.start}
        found = {name: Path(path) for name, path in named.items() if path is not None}
        if params.checkout is not None:
            from jobs.train.networks import network_parts

            found |= {f"{CHECKOUT}/{name}": path for name, path in network_parts(Path(params.checkout)).items()}
        if START in found and not (found[START] / "state.json").is_file():
            raise BadInput(
                f"start={found[START]} is no checkpoint of a training",
                hint="name a folder checkpoints/STEP of one, with state.json in it",
            )
        if SOURCE in found and EVALUATION in found and found[SOURCE].resolve() == found[EVALUATION].resolve():
            raise BadInput(
                f"{found[SOURCE]} cannot both be trained on and evaluated on", hint="name another evaluation_source"
            )
        width, height = params.width, params.height
        if SOURCE in found:
            clip = open_source(found[SOURCE], pairs=params.pairs)
            width, height = clip.width, clip.height
        if EVALUATION in found:
            open_source(found[EVALUATION], pairs=params.evaluation_pairs)
        photograph_clips(params, width, height)
        return found

    def run(self, ctx: Context) -> None:
        from jobs.train.run import run

        run(ctx)


def photograph_clips(params: TrainParams, width: int, height: int) -> tuple[list[Clip], list[Clip]]:
    """(pans to train on, pans over held out photographs); empty where the user's own frames are used.

    Raises:
        BadInput: an unknown photograph, an empty side, or fewer pairs than photographs.
    """
    from jobs.train.data import photos

    if params.source is not None and params.evaluation_source is not None:
        return [], []
    training, held = photos.split(
        params.held_out, seed=params.split_seed, count=params.held_out_count, of=params.photographs
    )

    def pans(names: tuple[str, ...], pairs: int) -> list[Clip]:
        return list(
            photos.pannings(names, pairs, seed=params.data_seed, width=width, height=height, speed=params.speed)
        )

    return (
        [] if params.source is not None else pans(training, params.pairs),
        [] if params.evaluation_source is not None else pans(held, params.evaluation_pairs),
    )
