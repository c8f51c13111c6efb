"""The kind `score`: one submission through the upstream evaluator, its number recomputed and its bytes counted.

This module stays light: the command line imports it to check parameters.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from core.errors import BadInput
from core.kind import Context, Kind, Measure, Params, Question, Ranking

if TYPE_CHECKING:
    import pyarrow as pa

# Names of its inputs; those of checkout and decoder are CHECKOUT/NAME and DECODER/NAME, file by file.
ARCHIVE, CHECKOUT, DECODER, FRAMES = "archive", "checkout", "decoder", "frames"
# What lies in a submission's folder after it was evaluated there: none of it is the decoder's.
_PRODUCTS = ("archive", "inflated", "archive.zip", "report.txt")
_MOST_FILES = 2000
PAIRS = 600  # of the challenge's video


class ScoreParams(Params):
    """See each field."""

    archive: str = Field(min_length=1, description="the submission's archive.zip")
    checkout: str = Field(min_length=1, description="a checkout of the challenge: evaluate.py, its networks, its video")
    decoder: str | None = Field(None, description="the folder with inflate.sh and all that it needs")
    frames: str | None = Field(
        None, description="a folder with BASE.raw made elsewhere, in place of a decoder: a proxy"
    )
    pairs: int | None = Field(None, ge=1, description="only the first pairs, a multiple of batch: a proxy")
    pin: str | None = Field(
        None,
        pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$",
        description="the evaluator's commit, or the SHA-256 of its files",
    )
    view: Literal["archive", "faithful"] = Field("archive", description="which rate `value` has; both are in the table")
    python: str | None = Field(None, description="the evaluator's interpreter [the checkout's .venv, else ours]")
    path: list[str] = Field(default_factory=list, description="folders in which decoder and evaluator find programs")
    device: Literal["cpu", "cuda", "mps"] = Field("cpu", description="the evaluator's; cuda needs --gpus 1")
    samples: int | None = Field(PAIRS, ge=1, description="pairs that the video has; null: as the report says")
    batch: int = Field(16, ge=1, description="pairs that are evaluated at once")
    seed: int = Field(1234, description="the evaluator's")
    height: int = Field(874, ge=1, description="rows of a frame")
    width: int = Field(1164, ge=1, description="columns of a frame")
    inflate: str = Field("inflate.sh", min_length=1, description="the decoder's script")
    without: list[str] = Field(
        default_factory=lambda: ["compress.*", "*.md", "__pycache__/*", "*.pyc", ".*"],
        description="files in its folder that the decoder is not given, as patterns",
    )
    videos: str = Field("videos", min_length=1, description="the checkout's folder of the original video")
    names: str = Field("public_test_video_names.txt", min_length=1, description="the checkout's list of videos")
    also: list[str] = Field(default_factory=list, description="more of the checkout that its evaluate.py needs")
    scratch: str | None = Field(None, description="where frames are written [the job's temporary folder]")
    submission: str = Field(
        "candidate",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="its folder's name below submissions/: some decoders import themselves by it",
    )
    disk_bytes: int | None = Field(None, ge=0, description="bytes that must be free there [those of the frames]")
    limit_s: float = Field(3 * 3600.0, gt=0, description="seconds for decoding and evaluating together")
    commit: str | None = Field(None, description="found by itself: what git says of the checkout")
    dirty: bool | None = Field(None, description="found by itself: do its files differ from that commit")

    @field_validator("checkout", "python", "scratch")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return None if value is None else str(Path(value).expanduser().absolute())

    @field_validator("also")
    @classmethod
    def _inside(cls, value: list[str]) -> list[str]:
        for name in value:
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} is no path inside the checkout")
        return value

    @model_validator(mode="before")
    @classmethod
    def _what_git_says(cls, given: Any) -> Any:
        """Commit and changes are asked for once, at the submit: the lane may not have the checkout."""
        if not isinstance(given, dict) or "commit" in given or not isinstance(given.get("checkout"), str):
            return given
        from jobs.score.checkout import git_says

        folder = Path(given["checkout"]).expanduser()
        if not folder.is_dir():
            return given
        commit, dirty = git_says(folder, _git_names(folder, given))
        return {**given, "commit": commit, "dirty": dirty}

    @model_validator(mode="after")
    def _goes_together(self) -> ScoreParams:
        if (self.decoder is None) == (self.frames is None):
            raise ValueError("give either the decoder's folder (decoder) or frames made elsewhere (frames)")
        if self.view == "faithful" and self.frames is not None:
            raise ValueError("view=faithful counts the decoder's files, and frames leaves the decoder out")
        if self.pairs is not None and self.pairs % self.batch:
            raise ValueError(f"pairs={self.pairs} is no multiple of batch={self.batch}: the evaluator compares batches")
        if self.pairs is not None and self.samples is not None and self.pairs > self.samples:
            raise ValueError(f"pairs={self.pairs} are more than the video has ({self.samples})")
        return self

    @property
    def is_proxy(self) -> bool:
        return self.pairs is not None or self.frames is not None

    @property
    def over(self) -> int | None:
        """Over how many pairs the report must be; None: whatever it says."""
        return self.pairs if self.pairs is not None else self.samples

    @property
    def need(self) -> int:
        """Bytes that must be free: named, or those of the frames that are written (3.66 GB of the challenge's)."""
        if self.disk_bytes is not None:
            return self.disk_bytes
        if self.frames is not None:
            return (self.pairs or 0) * self.pair_bytes  # all of them are linked to, not copied
        return (self.samples or PAIRS) * self.pair_bytes

    @property
    def pair_bytes(self) -> int:
        """Of two decoded frames."""
        return 2 * self.height * self.width * 3


class ScoreKind(Kind):
    """See the module."""

    name: ClassVar[str] = "score"
    summary: ClassVar[str] = "a submission through the upstream evaluator: score, parts, bytes, how far to believe it"
    Params: ClassVar[type[Params]] = ScoreParams
    code: ClassVar[tuple[str, ...]] = ("core", "jobs.score", "jobs.score_kind")
    # One at a time on a lane: it is exclusive, and the lane must offer it (`resources: [scorer]` in cluster.yaml).
    needs: ClassVar[Mapping[str, Any]] = {"resources": ["scorer"], "role": "eval"}

    def tables(self) -> dict[str, pa.Schema]:
        from jobs.score.schema import FILES, SCORE

        return {"score": SCORE, "score_files": FILES}

    def questions(self) -> Mapping[str, Question]:
        return {
            "noise": Question(
                "how far repeated scorings of one submission are apart",
                "SELECT bundle_sha256, contract_sha256, view, count(*) AS scorings, max(value) - min(value) AS spread, "
                "min(value) AS least, max(value) AS most FROM score WHERE {jobs} GROUP BY ALL ORDER BY spread DESC",
            ),
        }

    def ranking(self) -> Ranking:
        # Within a contract the files of evaluator and video are the same, and the pairs, the device and the batch.
        return Ranking(
            "SELECT job, substr(bundle_sha256, 1, 12) AS name, bundle_sha256, value, "
            "contract_sha256 || view || (authority = 'proxy') AS within, "
            "(CASE authority WHEN 'proxy' THEN 'proxy value' ELSE 'score' END) || ' (' || view || ' view)' AS label "
            "FROM score WHERE {jobs}",
            (
                Measure(
                    "value",
                    "label",
                    "within",
                    "scores by another evaluator, of another view, of other pairs or on another device, and proxies, "
                    "are other quantities (`lab floor` says which may promote)",
                ),
            ),
            "bundle_sha256",
        )

    def describe(self, params: ScoreParams) -> str:
        said = [f"{Path(params.archive).parent.name}/{Path(params.archive).name}"]
        if params.is_proxy:
            said.append("proxy on " + (f"{params.pairs} pairs" if params.pairs is not None else "given frames"))
        if params.device != "cpu":
            said.append(f"on {params.device}")
        return ", ".join(said)

    def inputs(self, params: ScoreParams) -> dict[str, Path]:
        """Archive, decoder and evaluator, looked into now: what cannot be scored is refused before anything starts."""
        from jobs.score.checkout import EVALUATE, Layout, git_says, options_of, scorer_digest, video_names
        from jobs.score.run import refuse_other_pin
        from jobs.score.views import members

        archive, checkout = Path(params.archive).expanduser(), Path(params.checkout)
        for name, path, there in (("archive", archive, archive.is_file()), ("checkout", checkout, checkout.is_dir())):
            if not there:
                raise BadInput(f"{name}={path} is not there", hint="correct the path")
        members(archive)
        found = {ARCHIVE: archive}
        parts = Layout(params.videos, params.names, tuple(params.also)).parts(checkout)
        options_of(checkout / EVALUATE)
        listed = video_names(checkout / params.names)
        if params.pairs is not None and len(listed) != 1:
            raise BadInput(f"pairs takes the first pairs of one video, and {params.names} names {len(listed)}")
        if git_says(checkout, list(parts)) != (params.commit, params.dirty):
            raise BadInput(
                f"the checkout {checkout} is not at the commit, or not in the state, that the parameters name",
                hint="leave commit and dirty out: they are found by themselves",
            )
        if params.pin is not None:
            refuse_other_pin(params, scorer_digest(parts))
        found |= {f"{CHECKOUT}/{name}": path for name, path in parts.items()}
        if params.decoder is not None:
            found |= {f"{DECODER}/{name}": path for name, path in runtime_files(params).items()}
        if params.frames is not None:
            found[FRAMES] = Path(params.frames).expanduser()
            if not found[FRAMES].is_dir():
                raise BadInput(f"frames={params.frames} is no folder", hint="name the one with BASE.raw of each video")
        return found

    def run(self, ctx: Context) -> None:
        from jobs.score.run import run

        run(ctx)


def runtime_files(params: ScoreParams) -> dict[str, Path]:
    """Name -> path of every file that the decoder is given.

    Raises:
        BadInput: no such folder, no decoder's script in it, or far too many files.
    """
    folder = Path(params.decoder or "").expanduser()
    if not folder.is_dir():
        raise BadInput(f"decoder={folder} is no folder", hint=f"name the one with {params.inflate}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.split("/")[0] in _PRODUCTS:
            continue
        if not any(fnmatch.fnmatch(name, p) or fnmatch.fnmatch(path.name, p) for p in params.without):
            found[name] = path
        if len(found) > _MOST_FILES:
            raise BadInput(f"{folder} has more than {_MOST_FILES} files", hint="name the decoder's own folder")
    if params.inflate not in found:
        raise BadInput(f"the decoder's folder {folder} has no {params.inflate}", hint="say what it is called: inflate=")
    return found


def _git_names(folder: Path, given: Mapping[str, Any]) -> list[str]:
    """What of the checkout makes the score, as far as unchecked parameters say; complaints come later."""
    from jobs.score.checkout import Layout

    fields = ScoreParams.model_fields
    also = given.get("also")
    try:
        layout = Layout(
            str(given.get("videos", fields["videos"].default)),
            str(given.get("names", fields["names"].default)),
            tuple(str(n) for n in also) if isinstance(also, list | tuple) else (),
        )
        return list(layout.parts(folder))
    except BadInput:
        return []
