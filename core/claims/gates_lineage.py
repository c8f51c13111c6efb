"""Gates on how jobs hang together: lineage by digests, counts by recounting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.claims import floors
from core.claims.evidence import Cited, Evidence, Images
from core.claims.words import Finding, Gate, capped, missing, passed, refused, worst

_SAMPLES, _SAID = "samples", "samples.json"


def lineage(evidence: Evidence) -> Finding:
    """Each job took exactly what the one before it made, by digests that are taken now."""
    gate = Gate.LINEAGE
    found: list[Finding] = []
    links = 0
    for cited in evidence.jobs:
        for taken in cited.taken:
            links += 1
            if not taken.now:
                said = f"what job {cited.job} ({cited.role}) took as {taken.name} cannot be read any more"
                found.append(missing(gate, said, (cited.job,)))
            elif taken.now != taken.recorded:
                said = f"job {cited.job} ({cited.role}) took {taken.name} as {taken.recorded[:12]}, and job "
                found.append(refused(gate, f"{said}{taken.maker} has {taken.now[:12]} now", (cited.job,)))
    for sample in evidence.all("sample"):
        found += _sample(evidence, sample)
    for judged in (*evidence.all("eval"), *evidence.all("nn")):
        found += _evaluation(evidence, judged)
    for train in evidence.all("train"):
        found += _training(evidence, train)
    found += [
        missing(gate, evidence.why_not(role))
        for role in ("data", "train", "sample", "eval")
        if not _has(evidence, role)
    ]
    said = f"{links} inputs and the digests in configurations, samples and evaluations lead from one to the next"
    return worst(found, passed(gate, said, links=links))


def _has(evidence: Evidence, role: str) -> bool:
    return evidence.of(role) is not None or bool(evidence.all(role))


def _sample(evidence: Evidence, sample: Cited) -> Iterator[Finding]:
    gate, train = Gate.LINEAGE, evidence.chain(sample, "train")
    said = sample.documents.get(_SAID)
    if not isinstance(said, Mapping):
        yield missing(gate, f"job {sample.job} (sample) has no readable {_SAID}", (sample.job,))
        return
    if train is None:
        return
    models = {f.now for f in train.files if f.now and f.path.endswith(".npz") and not f.path.endswith("encoder.npz")}
    yield from _link(said.get("train_sha256"), models, f"job {sample.job} ({sample.role}) drew from a model",
                     f"job {train.job} has none of these bytes", (sample.job, train.job))  # fmt: skip
    configs = {train.sealed("artifacts/config.json")} - {""}
    yield from _link(said.get("config_sha256"), configs, f"job {sample.job} ({sample.role}) drew by a configuration",
                     f"that of job {train.job} is another", (sample.job, train.job))  # fmt: skip
    wanted = evidence.claim.config
    if wanted and sample.role == "sample" and wanted not in configs:
        now = next(iter(configs), "none")
        yield refused(
            gate, f"the claim is of configuration {wanted[:12]}, and job {train.job} has {now[:12]}", (train.job,)
        )
    images = sample.images.get(_SAMPLES)
    if images is not None and said.get("content_sha256", images.content) != images.content:
        yield refused(gate, f"{_SAID} of job {sample.job} names other pictures than it has", (sample.job,))


def _evaluation(evidence: Evidence, judged: Cited) -> Iterator[Finding]:
    gate = Gate.LINEAGE
    sample = evidence.chain(judged, "sample")
    if sample is None:
        return
    takes = {t.maker for t in judged.taken}
    if sample.job not in takes:
        known = ", ".join(str(t) for t in sorted(m for m in takes if m is not None)) or "none"
        said = (
            f"job {judged.job} ({judged.role}) did not take what job {sample.job} (sample) made; it took from {known}"
        )
        yield refused(gate, said, (judged.job, sample.job))
    images = sample.images.get(_SAMPLES)
    rows = [r for r in judged.rows("samples") if r.get("control", "") != "held" and not _matched(r)]
    if judged.own != "eval":
        return
    if images is None:
        yield missing(gate, f"the samples of job {sample.job} cannot be read", (sample.job,))
        return
    if not rows:
        yield missing(gate, f"no row of job {judged.job} ({judged.role}) says which samples it judged", (judged.job,))
    for row in rows:
        if row["samples"] != images.content:
            said = f"job {judged.job} ({judged.role}) judged samples {str(row['samples'])[:12]}, and job {sample.job} "
            yield refused(gate, f"{said}made {images.content[:12]}", (judged.job, sample.job))
            return


def _training(evidence: Evidence, train: Cited) -> Iterator[Finding]:
    gate, data = Gate.LINEAGE, evidence.of("data")
    config = train.documents.get("config.json")
    if not isinstance(config, Mapping):
        yield missing(gate, f"job {train.job} ({train.role}) has no readable config.json", (train.job,))
        return
    if data is not None:
        yield from _link(config.get("data_sha256"), set(data.identities),
                         f"job {train.job} ({train.role}) was trained on data", f"job {data.job} has other data",
                         (train.job, data.job))  # fmt: skip
    encoder = train.weights.get("encoder.npz")
    named = config.get("training_encoder_sha256")
    if encoder is not None and named and named not in (encoder.content, train.sealed("artifacts/encoder.npz")):
        said = f"config.json of job {train.job} names the encoder {str(named)[:12]}, and encoder.npz holds "
        yield refused(gate, f"{said}{encoder.content[:12]}", (train.job,))


def _link(stated: Any, known: set[str], what: str, otherwise: str, jobs: tuple[int, ...]) -> Iterator[Finding]:
    if not stated:
        yield missing(Gate.LINEAGE, f"{what} that it does not name", jobs)
    elif not known:
        yield missing(Gate.LINEAGE, f"{what} {str(stated)[:12]} that is not there any more", jobs)
    elif stated not in known:
        yield refused(Gate.LINEAGE, f"{what} {str(stated)[:12]}, and {otherwise}", jobs)


def counts(evidence: Evidence) -> Finding:
    """As many samples as are said, each another, recounted from table and bytes; enough for the rung."""
    gate = Gate.COUNTS
    found: list[Finding] = []
    least: int | None = None
    samples = evidence.all("sample")
    if not samples:
        found.append(missing(gate, evidence.why_not("sample")))
    for sample in samples:
        n, wrong = _recount(sample)
        found += wrong
        if n is not None:
            least = n if least is None else min(least, n)
    for judged in evidence.judged:
        found += _evaluated(evidence, judged)
    if not evidence.all("eval"):
        found.append(missing(gate, evidence.why_not("eval")))
    if least is not None:
        top = floors.rung_for(least, floors.SAMPLES)
        said = f"{least:,} samples: {floors.next_floor(least, floors.SAMPLES)}"
        if floors.next_floor(least, floors.SAMPLES):
            found.append(capped(gate, top, said, (), n=least))
    return worst(found, passed(gate, f"{least or 0:,} samples, each another, as declared", n=least or 0))


def _recount(sample: Cited) -> tuple[int | None, list[Finding]]:
    """(distinct samples by bytes, what is wrong)."""
    gate, who, jobs = Gate.COUNTS, f"job {sample.job} ({sample.role})", (sample.job,)
    images: Images | None = sample.images.get(_SAMPLES)
    rows = [r for t in sample.tables.values() for r in t if "sample_id" in r and "digest" in r]
    said = sample.documents.get(_SAID)
    declared = {k: v for k, v in {
        "parameter n": sample.params.get("n"),
        _SAID: said.get("n") if isinstance(said, Mapping) else None,
    }.items() if isinstance(v, int)}  # fmt: skip
    if images is None:
        why = next((p for p in sample.problems if _SAMPLES in p), "its samples are not there")
        return None, [missing(gate, f"{who}: {why}", jobs)]
    if not rows:
        return None, [missing(gate, f"{who} has no table of its samples", jobs)]
    found: list[Finding] = []
    unique_ids = len({r["sample_id"] for r in rows})
    unique = len(set(images.digests))
    if unique != images.count:
        found.append(refused(gate, f"{who} has {images.count:,} samples, and only {unique:,} of them differ", jobs,
                             n=images.count, different=unique))  # fmt: skip
    if unique_ids != len(rows):
        found.append(refused(gate, f"{who} has {len(rows):,} rows, and only {unique_ids:,} names", jobs))
    if len(rows) != images.count:
        found.append(refused(gate, f"{who} lists {len(rows):,} samples, and its file holds {images.count:,}", jobs))
    elif sorted(str(r["digest"]) for r in rows) != sorted(images.digests):
        found.append(refused(gate, f"the table of {who} lists other pictures than its file holds", jobs))
    for where, n in declared.items():
        if n != images.count:
            found.append(refused(gate, f"{who}: {where} says {n:,} samples, and there are {images.count:,}", jobs))
    return unique, found


def _evaluated(evidence: Evidence, judged: Cited) -> Iterator[Finding]:
    gate, jobs = Gate.COUNTS, (judged.job,)
    sample = evidence.chain(judged, "sample") if judged.own == "eval" else None
    rows = [r for r in judged.metrics() if r.get("control") != "held" and not str(r["metric"]).endswith("_floor")]
    if not rows:
        yield missing(gate, f"job {judged.job} ({judged.role}) has no table of metrics", jobs)
        return
    images = sample.images.get(_SAMPLES) if sample is not None else None
    floor = {r.get("n") for r in judged.metrics() if r.get("control") == "held"}
    for row in rows:
        who = f"job {judged.job} ({judged.role}): {row['metric']} is of {row.get('n')} samples"
        if _matched(row):
            # Of as many of them as stand in for real images: never of more than there are.
            if row.get("n") not in floor or (images is not None and not 0 < row["n"] <= images.count):
                yield refused(gate, f"{who}, and the floor beside it is of {_listed(floor)}", jobs)
                return
        elif images is not None and row.get("n") != images.count:
            yield refused(gate, f"{who}, and there are {images.count:,}", jobs)
            return
    features = judged.series.get("features.npz:rows")
    if features and images is not None and int(features[0]) != images.count:
        yield refused(
            gate,
            f"job {judged.job} ({judged.role}) keeps {int(features[0]):,} features of {images.count:,} samples",
            jobs,
        )
    yield from _document(judged)


def _matched(row: Mapping[str, Any]) -> bool:
    """Is the row of a part of the samples, as many as the floor has?"""
    return str(row.get("metric", "")).endswith("_matched")


def _listed(numbers: set[Any]) -> str:
    return ", ".join(sorted(map(str, numbers))) or "nothing"


def _document(judged: Cited) -> Iterator[Finding]:
    """evaluation.json must not say other things than the rows."""
    gate, jobs = Gate.COUNTS, (judged.job,)
    told = judged.documents.get("evaluation.json")
    if not isinstance(told, Mapping):
        return
    listed = told.get("rows")
    known = {str(r["metric"]): r for r in judged.metrics()}
    said = [r for r in listed if isinstance(r, Mapping)] if isinstance(listed, list) else [told]
    for row in said:
        own = known.get(str(row.get("metric")), {}) if "metric" in row else next(iter(known.values()), {})
        for name in ("n", "contract", "value", "samples", "reference"):
            if isinstance(row.get(name), str | int | float) and row[name] != own.get(name):
                where = f"evaluation.json of job {judged.job}"
                yield refused(gate, f"{where} says {name} = {row[name]!r}, its rows {own.get(name)!r}", jobs)
                return
