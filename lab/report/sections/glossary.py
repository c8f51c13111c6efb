"""The words of the project."""

from __future__ import annotations

from lab.report.doc import Block, Code, Facts, Inline, Line, Name, Page, Section

PATH = "glossary.html"

_RUNS = {
    "lane": "A machine, or a part of one, that runs attempts.",
    "job": "A kind with its parameters, declared inputs and needs.",
    "key": "What makes a job itself and no other: the digest of kind, parameters, inputs, code, packages and device.",
    "attempt": "One try of a job on one lane, numbered.",
    "sweep": "The jobs of a grid; each is a cell.",
    "study": "Jobs that wait for each other and take each other's files: a tree without loops.",
    "run directory": "The files of one attempt.",
    "journal": "The one truth about jobs, attempts and lanes: events that are never taken back.",
    "table": "Result rows of jobs, each with the job and attempt that wrote it.",
    "seal": "The manifest of an attempt, written last: every file with its digest.",
    "commit": "The journal's word that a sealed attempt is the job's result. It is given once.",
    "undeclared": "A job that read a file which it had not declared. It never answers the cache and promotes nothing.",
    "batch": "Short cells that one warm worker ran together.",
    "admission": "The ladder that a remote lane climbs before it is used for a role.",
    "rung": "One step of that ladder, with its evidence.",
    "role": "What a lane may be used for: eval, train, sweep, promote.",
}
_BELIEF = {
    "claim": "A statement with numbers, the jobs that it cites, and a label that is computed when it is asked for.",
    "label": "What the gates say of a claim now: smoke, experimental, closest feasible, paper faithful.",
    "gate": "One question to the evidence of a claim; its answer may cap the label.",
    "waiver": "A check that was relaxed, written down with its reason. A waived run stays experimental.",
    "demotion": "A label that fell because evidence, a gate or a contract changed.",
    "deferred": "A gate that is not closed yet, or a question that is not decided. One caps the label.",
    "pin": "Files that a claim cites are never removed.",
    "contract": "What makes numbers comparable: evaluator, preprocessing, reference, device. Its digest says which.",
    "floor": "The best submission that may be called so: found from committed scores, never typed.",
    "noise": "How far repeated scorings of the same submission lie apart.",
    "promote": "To take the floor's place: better by more than the noise, and allowed to.",
    "close miss": "Equal to the floor within the noise, or ahead by a value that only ranks.",
    "reject": "Worse than the floor.",
    "cut": "Behind by a value that only ranks: the scorer is not spent on it.",
    "authority": "How much a score counts: the upstream scorer most; a proxy never promotes.",
    "hypothesis": "What a training says of its artefact. It is no score.",
    "made row": "A number that the report computed from other rows; it says how, and from which.",
}
_SCIENCE = {
    "oracle": "A plain implementation in full precision, against which fast ones are held.",
    "mutant": "A backend with a known bug. A check that passes it cannot fail, and fails itself.",
    "tap": "An intermediate value that two implementations are compared by.",
    "parity": "Do two implementations give the same, within a stated tolerance?",
    "dose": "Photons a diffraction pattern; fewer make more noise.",
    "FRC": "Fourier ring correlation: agreement of two images, frequency by frequency.",
    "MS-SSIM": "Structural similarity over several scales.",
    "PSNR": "Peak signal to noise ratio, in decibels; higher is better.",
    "FID": "Distance between the feature statistics of two sets of images; lower is better.",
    "IS": "Inception score: how sure and how varied a classifier is about generated images.",
    "drift": "The field that moves generated samples towards data and away from each other; training follows it.",
    "alpha": "How strongly a sample is guided towards its class. Where it changes nothing it is called inert.",
    "NN audit": "Nearest neighbours of samples among the training images: does the model repeat them?",
    "control": "What must be beaten, or must fail: an untrained network, a mean, a known bug.",
    "seed": "The number from which a run's randomness follows. Runs that differ in it only show the spread.",
}


def page() -> Page:
    """All words, in groups."""
    blocks: list[Block] = [
        Section("running", ["Running"], [_facts(_RUNS)]),
        Section("believing", ["Believing"], [_facts(_BELIEF)]),
        Section("science", ["Science"], [_facts(_SCIENCE)]),
        Section("reading", ["Reading this report"], [Facts(_reading())]),
    ]
    return Page(PATH, ["Glossary"], blocks, "Glossary")


def _facts(words: dict[str, str]) -> Facts:
    return Facts([([Name(word)], [said]) for word, said in sorted(words.items(), key=lambda w: w[0].lower())])


def _reading() -> list[tuple[Line, Line]]:
    every: list[Inline] = [
        "A dotted line below it: it leads to its row, which says the run directory and the command that made it."
    ]
    check: list[Inline] = [Code("lab report --check"), " builds this report again and compares it byte for byte."]
    return [(["a number"], every), (["is it still true"], check)]
