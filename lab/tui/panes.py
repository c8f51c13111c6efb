"""What stands outside of the tables: the first line, the last line, and everything about the selected job."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from itertools import groupby

from core.journal.query import Attempt
from core.states import JobState
from lab.output import human
from lab.output import job as look
from lab.tui import clean, plot
from lab.tui.facts import Detail, SweepFact
from lab.tui.marks import Marks
from lab.tui.model import Header
from lab.tui.reading import CELL_ORDER
from lab.tui.spans import Line, Span, fitted, text_of, width_of

_LEAST_LOG, _LEAST_PLOT = 3, 4
_SIDE_BY_SIDE = 60  # a pane as wide as this shows curve and log beside one another
FIRST_KEYS = 10  # of the footer: those behind them only where all fit
_LABEL = 9  # cells of the numbers at a curve
_WORDS = re.compile(r"[ _]+")
LETTERS = "abcdefgh"  # of curves in one frame: their colours alone would not do

Keys = Sequence[tuple[str, str]]  # key, what it does


def header_line(head: Header, width: int, marks: Marks, *, clock: str | None = None) -> Line:
    """Who we are, whether anybody does the work, how much there is of it, and when."""
    mark = marks.mark("up" if head.controller_role == "good" else "down" if head.controller_role == "bad" else "?")[0]
    left: list[Span] = [(" lab ", "head"), (f" {mark} ".rstrip() + " ", head.controller_role)]
    left.append((head.controller, head.controller_role))
    now = clock if clock is not None else time.strftime("%H:%M:%S", time.localtime(head.clock))
    right: list[Span] = [(now, "dim"), (" ", "text")]
    if head.trouble:
        room = width - width_of(left) - width_of(right) - 4
        left += [("  ", "text"), (clean.fit(f"! {head.trouble}", max(4, room), marks.ellipsis), "warn")]
        return fitted([*left, *_blank(width - width_of(left) - width_of(right)), *right], width)
    for word, count in head.counts:
        symbol, role = marks.mark(word)
        said = [
            ("   " if width >= 100 else "  ", "text"),
            (f"{symbol} {count:,} {word}", role if role != "dim" else "dim"),
        ]
        if width_of(left) + width_of(said) + width_of(right) < width:
            left += said
    room = width - width_of(left) - width_of(right) - 4
    if room >= 12:
        home = head.home if len(head.home) <= room else marks.ellipsis + head.home[-(room - 1) :]
        right = [(home, "dim"), ("  ", "text"), *right]
    return fitted([*left, *_blank(width - width_of(left) - width_of(right)), *right], width)


def footer_line(keys: Keys, width: int, message: str, role: str, marks: Marks) -> Line:
    """What the keys do, or for a while what the last one did."""
    if message:
        return fitted([(" ", "text"), (clean.one_line(message), role)], width, ellipsis=marks.ellipsis)
    for shown, gap in ((keys, 2), (keys[:FIRST_KEYS], 2), (keys[:FIRST_KEYS], 1)):
        out: list[Span] = [(" ", "text")]
        for key, does in shown:
            out += [(key, "barkey"), (f" {does}", "bar"), (" " * gap, "bar")]
        if width_of(out) - gap <= width:
            break
    return fitted(out, width)


def key_at(line: Line, x: int) -> str:
    """The key whose name was clicked on; empty where there is none."""
    at, key = 0, ""
    for text, role in line:
        if role == "barkey":
            key = text
        at += width_of(((text, role),))
        if x < at:
            return key if text.strip() else ""
    return ""


def detail_title(detail: Detail | None, marks: Marks) -> list[Span]:
    """One line that names the job and says how it is."""
    if detail is None:
        return [("nothing is selected", "dim")]
    job = detail.job
    return [(f"{job.id} ", "dim"), (clean.one_line(look.label(job)), "head"), ("  ", "text"), marks.state(job.state)]


def detail_lines(
    detail: Detail | None, width: int, height: int, now: float, metric: str, marks: Marks, *, log_scroll: int = 0
) -> list[Line]:
    """Everything about the selected job in `height` lines: facts, why, curve, log; the log takes what is left."""
    if detail is None or width < 10 or height < 1:
        return [fitted((), max(0, width))] * max(0, height)
    inner = width - 2
    roomy = height >= 16
    facts = _facts(detail, inner, now, marks, roomy=roomy)
    why = _why(detail, inner, 6 if roomy else 2, marks)
    top = [*facts, *why]
    if roomy:
        top += _attempts(detail, inner, now, marks)
        top += _sweep(detail.sweep, inner, marks)
    elif detail.sweep is not None:
        below_it = max(1 + _LEAST_PLOT, len(detail.series)) if detail.series else 1
        top = [*_sweep(detail.sweep, inner, marks), *top][: max(1, height - below_it)]
    name = chosen(detail, metric)
    if name and not detail.series and roomy:
        top += _latest(detail, name, inner, marks)
    left = height - len(top)
    below: list[Line] = []
    if name and inner >= _SIDE_BY_SIDE and not roomy and left >= _LEAST_PLOT:
        half = inner // 2 - 1
        curve = _curve(detail, name, half, left, marks)
        beside = _legend if detail.series else _log
        other = beside(detail, inner - half - 2, left, marks, name)
        below = [(*a, ("  ", "text"), *b) for a, b in zip(curve, other, strict=True)]
    elif name and left >= _LEAST_PLOT + _LEAST_LOG:
        rows = min(14, max(_LEAST_PLOT, left * 2 // 5))
        beside = _legend if detail.series else _log
        below = [*_curve(detail, name, inner, rows, marks), *beside(detail, inner, left - rows, marks, name)]
    elif left > 0:
        below = _log(detail, inner, left, marks)
    lines = [*top, *below][:height]
    lines += [()] * (height - len(lines))
    return [fitted([(" ", "text"), *fitted(line, inner, ellipsis=marks.ellipsis)], width) for line in lines]


def chosen(detail: Detail, metric: str) -> str:
    """The metric that is shown: the chosen one; else one that looks like a loss, or like a value; else the first."""
    names = detail.metrics
    if metric in names:
        return metric
    likely = [n for n in names if "loss" in n.lower()] or [n for n in names if n.lower().endswith("value")]
    drawn = [n for n in likely if _most_points(detail, n) > 1]
    return next(iter(drawn or likely or names), "")


def _most_points(detail: Detail, name: str) -> int:
    curves = [detail.curves, *(one.curves for one in detail.series)]
    return max(len(some[name][0]) if name in some else 0 for some in curves)


def _latest(detail: Detail, but: str, width: int, marks: Marks) -> list[Line]:
    """The last number of every other curve, in one or two lines."""
    names = sorted(detail.curves, key=lambda n: (not n.lower().endswith(("value", "loss")), n))
    said = [f"{n} {plot.number(detail.curves[n][1][-1])}" for n in names if n != but]
    return (
        [((line, "dim"),) for line in clean.wrap(f" {marks.dot} ".join(said), width, 2, marks.ellipsis)] if said else []
    )


def _facts(detail: Detail, width: int, now: float, marks: Marks, *, roomy: bool) -> list[Line]:
    job = detail.job
    said: list[Span] = []
    words = []
    if job.lane:
        words.append(f"on {job.lane}")
    if job.attempts > 1:
        words.append(f"attempt {job.attempts}")
    took = human.span(look.run_time(job, now))
    if took:
        words.append(took)
    if job.priority:
        words.append(f"priority {job.priority}")
    words.append(f"submitted {human.age(job.submitted, now)} ago")
    if job.sweep is not None:
        words.append(f"cell of {job.sweep}")
    if job.rerun_of:
        words.append(f"rerun of {job.rerun_of}")
    if job.tags:
        words.append("tags " + ", ".join(job.tags))
    said.append((clean.one_line(f" {marks.dot} ".join(words)), "text"))
    out: list[Line] = [tuple(said)]
    params = clean.one_line(human.params(job.params))
    if params and roomy:
        out += [((line, "dim"),) for line in clean.wrap(params, width, 4, marks.ellipsis)]
    if job.note:
        out.append(((clean.one_line(job.note), "text"),))
    return out


def _why(detail: Detail, width: int, most: int, marks: Marks) -> list[Line]:
    job = detail.job
    out: list[Line] = []
    role = (
        "error" if job.state is JobState.FAILED else "warn" if job.state in (JobState.HELD, JobState.QUEUED) else "dim"
    )
    # That it runs or succeeded is said above; what else there is to say is worth a line.
    sentences = detail.explained
    if job.state.terminal and job.state is not JobState.SUCCEEDED and look.why(job):
        sentences = (clean.one_line(look.why(job)), *sentences[1:])
    if job.state in (JobState.RUNNING, JobState.SUCCEEDED):
        sentences = sentences[1:] if most > 2 else ()
    for i, sentence in enumerate(sentences):
        room = most - len(out)
        if room <= 0:
            break
        text = sentence[:1].upper() + sentence[1:]
        out += [((line, role if i == 0 else "dim"),) for line in clean.wrap(text, width, min(3, room), marks.ellipsis)]
    return out


def _attempts(detail: Detail, width: int, now: float, marks: Marks) -> list[Line]:
    if len(detail.attempts) < 2:
        return []
    out = [_rule("attempts", width, marks)]
    for a in detail.attempts[-4:]:
        out.append((*_padded_state(marks.state(a.state)), (_attempt_words(a, now), "text")))
    return out


def _attempt_words(a: Attempt, now: float) -> str:
    begun = a.started if a.started is not None else a.placed
    seconds = a.seconds if a.seconds is not None else (a.ended or now) - begun
    said = a.message or (a.cause if a.cause and a.cause not in ("ok", str(a.state)) else "")
    return clean.one_line(f"{a.n} on {a.lane}  {human.span(seconds)}  {said or ''}").rstrip()


def _padded_state(span: Span) -> tuple[Span, Span]:
    return span, (" " * max(1, 13 - width_of((span,))), "text")


def _sweep(fact: SweepFact | None, width: int, marks: Marks) -> list[Line]:
    """How the cells are, and which grid they are of."""
    if fact is None or not fact.total:
        return []
    said: list[Span] = []
    for state in CELL_ORDER:
        if fact.counts.get(state):
            symbol, role = marks.mark(str(state))
            said += [(f"{symbol} {fact.counts[state]:,} {state}", role), ("   ", "text")]
    failed, running = fact.of(JobState.FAILED), fact.of(JobState.RUNNING, JobState.CANCELLING)
    total = fact.total
    meter = plot.bar(
        (fact.ended - failed) / total,
        max(10, width),
        failed=failed / total,
        running=running / total,
        unicode=marks.unicode,
    )
    out: list[Line] = [tuple(meter), tuple(said)]
    if fact.first_failed is not None:
        words = f"cell {fact.first_failed} failed first: {clean.one_line(fact.first_error)}"
        out += [((line, "error"),) for line in clean.wrap(words, width, 2, marks.ellipsis)]
    limits = []
    if fact.sweep.at_once is not None:
        limits.append(f"at most {fact.sweep.at_once:,} at once")
    if fact.sweep.max_fails is not None:
        limits.append(f"stops after {fact.sweep.max_fails:,} failures")
    for name, values in fact.sweep.axes:
        shown = ", ".join(human.value(v) for v in values[:12]) + (f", {marks.ellipsis}" if len(values) > 12 else "")
        limits.append(f"{name} = {shown}" + (f" ({len(values)})" if len(values) > 3 else ""))
    return [*out, *(((clean.one_line(words), "dim"),) for words in limits)]


def _curve(detail: Detail, name: str, width: int, height: int, marks: Marks) -> list[Line]:
    """A heading and the curve, or those of the cells, `height` lines in all."""
    names = detail.metrics
    which = f"{names.index(name) + 1}/{len(names)} [ ]" if len(names) > 1 else ""
    if detail.series:
        several = [one.curves.get(name, ((), ())) for one in detail.series]
        most = max((xs[-1] for xs, _ in several if xs), default=0.0)
        said = [(name, "head"), (f" to step {plot.number(most)} {which}", "dim")]
    else:
        several = [detail.curves[name]]
        xs, ys = several[0]
        last = [(f" {plot.number(ys[-1])}", "accent"), (f" at step {plot.number(xs[-1])} {which}".rstrip(), "dim")]
        said = [(name, "head"), *last]
    heading = fitted(said, width, ellipsis=marks.ellipsis)
    rows = height - 1
    finite = [y for _, ys in several for y in ys if math.isfinite(y)]
    low, high = plot.bounds(finite) if finite else (0.0, 1.0)
    letters = LETTERS if detail.series else ""
    drawn = plot.curves(several, max(1, width - _LABEL), rows, unicode=marks.unicode, letters=letters)
    out: list[Line] = [heading]
    for i, cells in enumerate(drawn):
        label = plot.number(high) if i == 0 else plot.number(low) if i == rows - 1 else ""
        spans = [("".join(c for c, _ in some), role) for role, some in groupby(cells, lambda cell: _role(cell, detail))]
        out.append(fitted([(label.rjust(_LABEL - 1) + " ", "dim"), *spans], width))
    return out


def _role(cell: tuple[str, int], detail: Detail) -> str:
    return f"line{cell[1] % len(LETTERS)}" if detail.series and cell[1] >= 0 else "curve"


def _legend(detail: Detail, width: int, height: int, marks: Marks, name: str) -> list[Line]:
    """Whose curve has which letter, and its last number; `height` lines in all."""
    shown = detail.series[: height - 1] if len(detail.series) > height else detail.series
    room = max(4, width - 12)
    labels = _told_apart([one.label for one in detail.series], room)
    out: list[Line] = []
    for number, (one, label) in enumerate(zip(shown, labels, strict=False)):
        ys = one.curves.get(name, ((), ()))[1]
        which = number % len(LETTERS)
        last = plot.number(ys[-1]) if ys else ""
        said = [(LETTERS[which], f"line{which}"), marks.mark(str(one.state))]
        said += [(f" {clean.fit(label, room, marks.ellipsis)} ", "text"), (last.rjust(8), "text")]
        out.append(fitted(said, width))
    more = _cells_of(detail) - len(shown)
    if more > 0 and len(out) < height:
        out.append(fitted([(f"  and {more:,} more cells", "dim")], width))
    return out + [fitted((), width)] * (height - len(out))


def _told_apart(labels: Sequence[str], room: int) -> list[str]:
    """The labels; where one is too long, without the words that all of them have."""
    if all(len(label) <= room for label in labels) or len(labels) < 2:
        return list(labels)
    words = [_WORDS.split(label) for label in labels]
    common = set(words[0]).intersection(*words)
    short = [" ".join(w for w in some if w not in common) for some in words]
    return short if len(set(short)) == len(labels) else list(labels)


def _cells_of(detail: Detail) -> int:
    return detail.sweep.total if detail.sweep is not None else len(detail.series)


def _log(detail: Detail, width: int, height: int, marks: Marks, name: str = "") -> list[Line]:
    """The end of the log, `height` lines in all."""
    if height <= 0:
        return []
    if detail.job.is_sweep:
        return [fitted((), width)] * height
    lines: list[Line] = []
    if height > _LEAST_LOG:
        lines.append(_rule(f"log  {detail.log_note}" if detail.log and detail.log_note else "log", width, marks))
    elif not detail.log and detail.log_note:
        return [fitted([(detail.log_note, "dim")], width)] + [fitted((), width)] * (height - 1)
    if not detail.log:
        lines.append(fitted([(detail.log_note, "dim")], width))
    room = height - len(lines)
    if detail.log and room > 0:
        lines += [fitted([(text, "text")], width, ellipsis=marks.ellipsis) for text in detail.log[-room:]]
    return lines + [fitted((), width)] * (height - len(lines))


def _rule(title: str, width: int, marks: Marks) -> Line:
    words = clean.fit(title, min(len(title), max(1, width - 6)), marks.ellipsis)
    return (
        (f"{marks.rule}{marks.rule} ", "faint"),
        (words, "dim"),
        (" " + marks.rule * max(0, width - len(words) - 4), "faint"),
    )


def _blank(width: int) -> list[Span]:
    return [(" " * width, "text")] if width > 0 else []


__all__ = ["chosen", "detail_lines", "detail_title", "footer_line", "header_line", "key_at", "text_of"]
