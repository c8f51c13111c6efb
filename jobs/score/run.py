"""One scoring: decode, evaluate, read the report, count the bytes, and say how far the number may be believed."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import BadInput, JobFailed
from core.fsio import digest
from core.kind import Context
from jobs.score import checkout, proxy, versions, views
from jobs.score.checkout import EVALUATE
from jobs.score.evaluator import EvaluatorFailed, Programs, clean_environment, scratch
from jobs.score.report import Report, ReportRefused, read_report
from jobs.score_kind import ARCHIVE, CHECKOUT, DECODER, FRAMES, ScoreParams

LOG, REPORT, INTERPRETER = "evaluator.log", "report.txt", "interpreter.json"
SUBMISSIONS = "submissions"


def run(ctx: Context) -> None:
    """Score one submission and write its row.

    Raises:
        DiskFull: its frames would not fit.
        EvaluatorFailed: decoder or evaluator ended badly or too late, or there is no report.
        InterpreterFailed: the evaluator's Python does not answer.
        JobFailed: archive, decoder or evaluator changed on the way.
        ReportRefused: the report contradicts itself or the files.
        BadInput: the archive is no zip, or the evaluator is not the one that was pinned.
    """
    p: ScoreParams = ctx.params
    if p.device == "cuda" and not ctx.gpus:
        raise BadInput("device=cuda and no GPU was granted", hint="submit with --gpus 1")
    given = _given(ctx)
    scorer = checkout.scorer_digest(given.parts)
    pinned = refuse_other_pin(p, scorer)
    authority, why = proxy.authority_of(
        proxy=proxy.said_of(p.frames is not None, p.pairs), pinned=pinned, commit=p.commit, dirty=p.dirty
    )
    ctx.log(f"the evaluator: {_git_said(p)}, its files are {scorer} (pin=)")
    seen = views.rule_faithful(given.archive, given.runtime)
    files = [*seen.files, *seen.inside]
    ctx.expect(rows={"score": 1, "score_files": len(files)}, artifacts=[REPORT, LOG, INTERPRETER])
    # Of the attempt's own temporary folder the lane takes care, however the attempt ends.
    base = Path(p.scratch) if p.scratch else ctx.artifacts.parent / "tmp"
    earlier = [] if p.scratch else sorted(ctx.artifacts.parent.parent.glob("*/tmp"))
    with scratch(base, need=p.need, also=earlier) as folder:
        env = _environment(p, folder)
        asked = versions.ask(interpreter_of(p), versions.imports_of(given.modules), env, folder / "home")
        ctx.artifact(INTERPRETER).write_text(asked.json() + "\n", encoding="utf-8")
        programs = Programs(ctx, env, ctx.artifact(LOG), p.limit_s)
        text = _evaluate(ctx, programs, folder, given)
        seconds = programs.seconds
    ctx.artifact(REPORT).write_text(text, encoding="utf-8")
    _refuse_changed(given, seen, scorer)
    report = read_report(
        text,
        archive_bytes=seen.files[0].bytes,
        original_bytes=checkout.original_bytes(given.parts[p.videos]),
        samples=p.over,
    )
    if report.samples is None:
        raise ReportRefused("the report does not say over how many samples it is")
    bundle = seen.digest if given.frames is None else digest([seen.digest, given.frames_sha256])
    # Not the evaluator's packages: a patch of a library would leave the lab without a floor. They are in the row, and
    # `lab floor` says where they differ.
    identity = {
        "scorer": scorer,
        "samples": report.samples,
        "device": p.device,
        "batch": p.batch,
        "seed": p.seed,
        "proxy": why if p.is_proxy else "",
    }
    row = _row(p, report, seen, bundle, authority, why, scorer, digest(identity), text, seconds)
    own = {"evaluator_python": asked.python, "evaluator_packages": asked.used_json}
    ctx.results("score", [row | own])
    ctx.results("score_files", [asdict(f) for f in files])


def _git_said(p: ScoreParams) -> str:
    if p.commit is None:
        return "nothing says which version it is"
    return f"commit {p.commit}" + ("" if p.dirty is False else ", with changes")


def _refuse_changed(given: Given, seen: views.View, scorer: str) -> None:
    """Raise where archive, decoder or evaluator are no longer what they were when it began."""
    again = views.rule_faithful(given.archive, given.runtime)
    what = "the archive" if again.files[0] != seen.files[0] else "the decoder" if again != seen else ""
    if not what and checkout.scorer_digest(given.parts) != scorer:
        what = "the evaluator"
    if what:
        raise JobFailed(f"{what} changed while it was scored: nothing is known of it", hint="score it again")


def refuse_other_pin(p: ScoreParams, scorer: str) -> bool:
    """Is the evaluator the pinned one? False where none is pinned. Raises BadInput where it is another."""
    if p.pin is None:
        return False
    if p.pin == scorer or (p.pin == p.commit and p.dirty is False):
        return True
    has = f"its files are {checkout.short(scorer)}" + (f", at commit {checkout.short(p.commit)}" if p.commit else "")
    has += " with changes" if p.dirty else ""
    raise BadInput(
        f"the evaluator {p.checkout} is not the one that is pinned ({checkout.short(p.pin)}): {has}",
        hint="check that version out, or pin another",
    )


@dataclass(frozen=True)
class Given:
    """The declared inputs, where they lie.

    Attributes:
        parts: name in the checkout -> path.
        runtime: name in the decoder's folder -> path.
        frames: a folder of frames made elsewhere; frames_sha256: of its content.
    """

    archive: Path
    parts: dict[str, Path]
    runtime: dict[str, Path]
    frames: Path | None
    frames_sha256: str

    @property
    def modules(self) -> list[Path]:
        """The checkout's own Python files."""
        return [path for name, path in self.parts.items() if name.endswith(".py")]


def _given(ctx: Context) -> Given:
    declared = {str(item["name"]): str(item.get("sha256") or "") for item in ctx.raw.get("inputs") or ()}
    names = sorted(declared)

    def below(folder: str) -> dict[str, Path]:
        return {n.removeprefix(folder + "/"): ctx.input(n) for n in names if n.startswith(folder + "/")}

    frames = ctx.input(FRAMES) if FRAMES in names else None
    return Given(ctx.input(ARCHIVE), below(CHECKOUT), below(DECODER), frames, declared.get(FRAMES, ""))


def _evaluate(ctx: Context, programs: Programs, folder: Path, given: Given) -> str:
    """Decode and evaluate in `folder`, each in a copy of the checkout of its own. Returns the report.

    The decoder finds neither the original video nor the networks there (the challenge forbids it both), and nothing
    that it changes is what the evaluator runs.
    """
    p: ScoreParams = ctx.params
    root = folder / "checkout"
    submission = root / SUBMISSIONS / p.submission
    inflated = submission / "inflated"
    submission.mkdir(parents=True)
    if given.frames is None:
        ctx.progress(0, 2, "decoding")
        os.replace(_decode(programs, folder / "decoding", given, p), inflated)
    _lay_out(root, given.parts)
    shutil.copyfile(given.archive, submission / "archive.zip")
    raws = checkout.raw_names(checkout.video_names(root / p.names))
    source = inflated if given.frames is None else given.frames
    proxy.put_frames(source, inflated, raws, pairs=p.pairs, height=p.height, width=p.width)
    ctx.progress(1, 2, "evaluating")
    report = submission / REPORT
    programs.run("the evaluator", _command(p, root, submission, report), root)
    if not report.is_file():
        raise EvaluatorFailed(
            f"the evaluator ended with exit 0 and wrote no report (asked for {report.name}): nothing is known"
        )
    ctx.progress(2, 2, "read")
    return report.read_text(encoding="utf-8", errors="replace")


def _lay_out(root: Path, parts: dict[str, Path]) -> None:
    """Put parts of the checkout below `root`: Python files as copies, the rest as links."""
    for name, path in parts.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".py"):
            shutil.copyfile(path, place)  # a link would lead Python's imports out of here
        else:
            place.symlink_to(path.resolve())


def _decode(programs: Programs, root: Path, given: Given, p: ScoreParams) -> Path:
    """Run the decoder with all that is counted, and the checkout's Python. Returns the folder of its frames."""
    submission = root / SUBMISSIONS / p.submission
    submission.mkdir(parents=True)
    _lay_out(root, {name: path for name, path in given.parts.items() if name not in (p.videos, checkout.MODELS)})
    for name, path in given.runtime.items():
        place = submission / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        shutil.copymode(path, place)
    shutil.copyfile(given.archive, submission / "archive.zip")
    views.unpack(submission / "archive.zip", submission / "archive")
    inflated = submission / "inflated"
    inflated.mkdir(exist_ok=True)
    words = ["bash", str(submission / p.inflate), str(submission / "archive"), str(inflated), str(root / p.names)]
    programs.run("the decoder", words, root)
    return inflated


def _command(p: ScoreParams, root: Path, submission: Path, report: Path) -> list[str]:
    takes = checkout.options_of(root / EVALUATE)
    words = [str(interpreter_of(p)), str(root / EVALUATE)]
    words += ["--submission-dir", str(submission), "--uncompressed-dir", str(root / p.videos)]
    words += ["--video-names-file", str(root / p.names), "--report", str(report), "--device", p.device]
    for option, value in (("--batch-size", p.batch), ("--seed", p.seed)):
        if option in takes:
            words += [option, str(value)]
        elif value != type(p).model_fields[option[2:].partition("-")[0]].default:
            raise BadInput(f"this evaluate.py takes no {option}", hint=f"leave {option[2:].partition('-')[0]} out")
    return words


def interpreter_of(p: ScoreParams) -> Path:
    """The Python that evaluates: named, the checkout's own, or ours.

    Raises:
        BadInput: the named one cannot be run here.
    """
    if p.python is not None:
        named = Path(p.python)
        if not os.access(named, os.X_OK) or named.is_dir():
            raise BadInput(f"python={named} cannot be run here", hint="name the evaluator's interpreter")
        return named
    own = Path(p.checkout) / ".venv" / "bin" / "python"
    return own if os.access(own, os.X_OK) else Path(sys.executable)


def _environment(p: ScoreParams, folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    return clean_environment(os.environ, home=home, interpreter=interpreter_of(p), path=p.path)


def _row(
    p: ScoreParams,
    report: Report,
    seen: views.View,
    bundle: str,
    authority: proxy.Authority,
    why: str,
    scorer: str,
    contract: str,
    text: str,
    seconds: float,
) -> dict[str, Any]:
    score = report.score
    whole = seen.score(score.seg, score.pose, score.original_bytes) if p.frames is None else None
    if whole is None and p.view == "faithful":  # refused with the parameters; never a silent other view
        raise BadInput("view=faithful needs the decoder's files", hint="name the decoder")
    shown = whole if whole is not None and p.view == "faithful" else score
    return {
        "score": score.value,
        "pose": score.pose,
        "seg": score.seg,
        "rate": score.rate,
        "seg_part": score.seg_part,
        "pose_part": score.pose_part,
        "rate_part": score.rate_part,
        "printed": report.printed,
        "resolution": report.resolution,
        "archive_bytes": score.archive_bytes,
        "original_bytes": score.original_bytes,
        "faithful_score": whole.value if whole is not None else None,
        "faithful_rate": whole.rate if whole is not None else None,
        "faithful_bytes": whole.archive_bytes if whole is not None else None,
        "view": p.view,
        "value": shown.value,
        "authority": authority.word,
        "why": why,
        "samples": report.samples,
        "device": p.device,
        "checkout_commit": p.commit,
        "checkout_dirty": p.dirty,
        "scorer_sha256": scorer,
        "contract_sha256": contract,
        "archive_sha256": seen.files[0].sha256,
        "bundle_sha256": bundle,
        "report_sha256": checkout.report_digest(text),
        "seconds": seconds,
    }
