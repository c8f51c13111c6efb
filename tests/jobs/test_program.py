"""External programs: what is refused, what is read back, and what makes an input mismatch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import marks, opens
from core.errors import BadInput, JobFailed
from jobs.parity import program
from jobs.parity.exchange import load
from jobs.parity.program import Format, Image, Program, ProgramReport, check, files_of, run
from jobs.parity.watch import How
from tests.jobs.stale import compiler

kernel = pytest.mark.skipif(not opens.available(), reason="this kernel cannot be asked at every open")
needs_cc = pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")

SHAPE = (2, 3)
WANT = np.arange(6, dtype=np.float64).reshape(SHAPE)
TEXT = "toy-effective-input 1\ndefault_f 0.000000000e+00\nlisted 6\n"
SHA = hashlib.sha256(TEXT.encode()).hexdigest()
ALL = ("{grid}", "{output}", "{digest}")

PROGRAM = """
import json, os, sys
import numpy as np
grid, output, digest = sys.argv[1:4]
values = np.loadtxt(grid).reshape(2, 3)
text = "toy-effective-input 1\\ndefault_f %.9e\\nlisted %d\\n" % (0, values.size)
json.dump({"text": text}, open(digest, "w"))
WRITE
"""
WRITE = "np.save(output, values)"


@pytest.fixture(autouse=True)
def no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(marks.LOG, raising=False)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.txt"
    path.write_text(" ".join(str(int(v)) for v in WANT.ravel()))
    return path


def script(tmp_path: Path, write: str = WRITE) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("WRITE", write))
    return [sys.executable, str(path), *ALL]


def go(tmp_path: Path, argv: list[str], grid: Path, format: Format = Format.NPY, **settings: Any) -> ProgramReport:
    image = Image(format, SHAPE, settings.pop("array", ""))
    return run(argv, tmp_path / "base", files={"grid": grid}, image=image, **{"time_s": 60.0, **settings})


# What comes back.


@pytest.mark.parametrize(
    ("format", "write", "array"),
    [
        (Format.NPY, WRITE, ""),
        (Format.NPY, "np.save(output, np.asfortranarray(values.astype('>f4')))", ""),
        (Format.NPZ, "np.savez_compressed(output, image=values)", ""),
        (Format.NPZ, "np.savez(output, image=values, other=values[:1])", "image"),
        (Format.FLOAT32, "values.astype('<f4').tofile(output)", ""),
        (Format.FLOAT64, "values.astype('<f8').tofile(output)", ""),
    ],
)
def test_every_format(tmp_path: Path, grid: Path, format: Format, write: str, array: str) -> None:
    report = go(tmp_path, script(tmp_path, write), grid, format, array=array)
    assert (report.error, report.code, report.left, report.undeclared) == ("", 0, (), ()), report
    assert report.output is not None
    found = load(report.output)
    assert found.dtype in (np.float32, np.float64)
    assert found.flags.c_contiguous
    assert np.array_equal(found, WANT)
    assert (report.told_digest, report.told) == (SHA, TEXT)
    assert report.mismatch(SHA) == report.mismatch(SHA, TEXT) == ""


@pytest.mark.parametrize(
    ("format", "write", "error"),
    [
        (Format.NPY, "pass", "the program did not write its floats to output.npy"),
        (Format.NPY, "np.save(output, values.T)", "output.npy is 3×2, not 2×3"),
        (Format.NPY, "np.save(output, values.astype('i4'))", "output.npy holds int32, not float32 or float64"),
        (Format.NPY, "np.save(output, values.astype(object))", "output.npy is no whole npy file"),
        (Format.NPY, "open(output, 'wb').write(b'\\x93NUMPY')", "output.npy is no whole npy file"),
        (Format.NPY, "np.save('a.npy', values); os.symlink('a.npy', output)", "output.npy is no file of its own"),
        (Format.NPY, "os.mkfifo(output)", "output.npy is no file of its own"),
        (Format.NPZ, "np.savez(output, a=values, b=values)", "output.npz holds a, b, and which one is the image"),
        (Format.NPZ, "open(output, 'w').write('x')", "output.npz is no whole npz file"),
        (Format.NPZ, "np.savez_compressed(output, a=np.zeros(10**6))", "a in output.npz is larger than 2×3"),
        (Format.FLOAT32, "values.tofile(output)", r"output.bin has 48 bytes, not 24 bytes \(2×3 float32\)"),
        (Format.NPY, "sys.exit(4)", "the program ended with exit code 4"),
        (Format.NPY, "os.kill(os.getpid(), 9)", "the program was ended by signal 9"),
    ],
)
def test_what_is_no_output_is_said(tmp_path: Path, grid: Path, format: Format, write: str, error: str) -> None:
    report = go(tmp_path, script(tmp_path, write), grid, format)
    assert report.output is None
    assert pytest.importorskip("re").match(error, report.error), report.error
    assert report.mismatch(SHA) == ""


def test_a_missing_name_in_an_npz(tmp_path: Path, grid: Path) -> None:
    report = go(tmp_path, script(tmp_path, "np.savez(output, a=values)"), grid, Format.NPZ, array="image")
    assert report.error == "output.npz holds no array image, only a"


def test_what_it_printed_is_kept(tmp_path: Path, grid: Path) -> None:
    report = go(
        tmp_path, script(tmp_path, "print('x' * 9000, flush=True); sys.stderr.write('bad grid'); sys.exit(1)"), grid
    )
    assert report.tail.rstrip().endswith("bad grid")
    assert len(report.tail) == program.TAIL


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path, grid: Path) -> None:
    report = go(tmp_path, ["/bin/sh", "-c", "sleep 600 & sleep 600", "sh", *ALL], grid, time_s=0.2)
    assert report.error == "the program ran longer than its time limit of 0.2 s"
    assert (report.output, report.code) == (None, -9)


def test_a_run_that_is_asked_to_stop_ends_it(tmp_path: Path, grid: Path) -> None:
    with pytest.raises(JobFailed, match="asked to stop"):
        go(tmp_path, ["/bin/sh", "-c", "sleep 600", "sh", *ALL], grid, stopping=lambda: True)


def test_it_gets_few_variables_and_no_home(tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SETTING", "from the shell")
    code = "import os; print(sorted(os.environ), os.environ['MINE'], os.listdir(os.environ['HOME']), os.listdir('.'))"
    report = go(tmp_path, [sys.executable, "-c", code, *ALL], grid, env={"MINE": "7"}, threads=3)
    assert "SOME_SETTING" not in report.tail
    assert report.tail.rstrip().endswith("7 [] []")


# Digests.


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("os.unlink(digest)", "it told no effective input: the program did not write its effective input to digest"),
        ("open(digest, 'w').write('x')", "it told no effective input: digest.json is no JSON: "),
        ("open(digest, 'w').write('[1]')", "it told no effective input: digest.json is no JSON object"),
        ("open(digest, 'w').write('{}')", 'it told no effective input: digest.json has neither "text" nor "sha256"'),
        (
            "json.dump({'sha256': 'ABC'}, open(digest, 'w'))",
            'it told no effective input: "sha256" in digest.json is no',
        ),
        (
            "json.dump({'text': text, 'sha256': '0' * 64}, open(digest, 'w'))",
            "it told no effective input: .* not that of",
        ),
        ("json.dump({'sha256': '0' * 64}, open(digest, 'w'))", f"the input is {SHA[:12]} here and 000000000000 there"),
        (
            "json.dump({'text': text.replace('listed 6', 'listed 0')}, open(digest, 'w'))",
            "the effective input is 'listed 6' here and 'listed 0' in the program$",
        ),
        ("json.dump({'text': text + 'more 1\\n'}, open(digest, 'w'))", ".*'\\(nothing\\)' here and 'more 1' in"),
        ("json.dump({'text': text.replace('\\n', '\\r\\n')}, open(digest, 'w'))", "the effective inputs differ in how"),
    ],
)
def test_a_digest_that_is_missing_or_another_is_a_mismatch(tmp_path: Path, grid: Path, told: str, why: str) -> None:
    report = go(tmp_path, script(tmp_path, f"{WRITE}; {told}"), grid)
    assert report.error == ""
    assert pytest.importorskip("re").match(why, report.mismatch(SHA, TEXT)), report.mismatch(SHA, TEXT)


def test_the_digest_alone_is_enough(tmp_path: Path, grid: Path) -> None:
    told = f"json.dump({{'sha256': '{SHA}'}}, open(digest, 'w'))"
    report = go(tmp_path, script(tmp_path, f"{WRITE}; {told}"), grid)
    assert report.mismatch(SHA, TEXT) == ""


# Files that nobody declared.

C_PROGRAM = r"""
/* Reads its grid, but prefers a dump that lies in its folder: what went wrong in the seed. */
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
    double values[6];
    char dump[4096];
    snprintf(dump, sizeof dump, "%s", argc > 4 ? argv[4] : "Fdump.bin");
    FILE *in = fopen(dump, "rb");
    if (in && fread(values, 8, 6, in) != 6) return 2;
    if (!in) {
        in = fopen(argv[1], "r");
        if (!in) return 3;
        for (int i = 0; i < 6; i++) if (fscanf(in, "%lf", values + i) != 1) return 4;
    }
    fclose(in);
    FILE *out = fopen(argv[2], "wb");
    fwrite(values, 8, 6, out);
    fclose(out);
    out = fopen(argv[3], "w");
    fprintf(out, "{\"text\": \"toy-effective-input 1\\ndefault_f %.9e\\nlisted %d\\n\"}\n", 0.0, 6);
    return fclose(out);
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c")
    (folder / "toy.c").write_text(C_PROGRAM)
    subprocess.run([str(compiler()), "-O1", "-o", str(folder / "toy"), str(folder / "toy.c")], check=True)
    return folder / "toy"


@needs_cc
@kernel
def test_a_compiled_program_with_a_stale_dump(tmp_path: Path, grid: Path, compiled: Path) -> None:
    """It tells the right digest and is wrong all the same: only the open gives it away."""
    argv, image = [str(compiled), *ALL], Image(Format.FLOAT64, SHAPE)
    clean = run(argv, tmp_path / "clean", files={"grid": grid}, image=image)
    assert (clean.error, clean.mismatch(SHA), clean.undeclared, clean.left) == ("", "", (), ())
    assert clean.output is not None
    assert np.array_equal(load(clean.output), WANT)

    stale = tmp_path / "Fdump.bin"
    (2 * WANT).tofile(stale)
    hidden = [*argv, "../../Fdump.bin"]
    found = run(hidden, tmp_path / "a", files={"grid": grid}, image=image)
    assert [f.path for f in found.undeclared] == [str(stale)]
    assert found.mismatch(SHA).startswith(f"it opened what was not declared: {stale} (")
    assert found.told_digest == SHA

    unwatched = run(hidden, tmp_path / "off", files={"grid": grid}, image=image, how=How.NONE)
    assert (unwatched.mismatch(SHA), unwatched.undeclared) == ("", ())
    assert unwatched.watch == "not watched: it was switched off"

    hooked = run(hidden, tmp_path / "hook", files={"grid": grid}, image=image, how=How.HOOK)
    assert hooked.watch.startswith("not watched: compiled programs are not seen here")

    declared = run(hidden, tmp_path / "ok", files={"grid": grid}, image=image, declared=(stale,))
    assert (declared.mismatch(SHA), declared.error) == ("", "")
    named = run([*argv, str(stale)], tmp_path / "named", files={"grid": grid}, image=image)
    assert (named.mismatch(SHA), named.error) == ("", "")  # what the command itself names is an input of the job
    put = run(argv, tmp_path / "put", files={"grid": grid}, image=image, put={"Fdump.bin": stale})
    assert (put.mismatch(SHA), put.error, put.left) == ("", "", ())
    assert put.output is not None
    assert np.array_equal(load(put.output), 2 * WANT)


@kernel
def test_an_output_that_it_did_not_make(tmp_path: Path, grid: Path) -> None:
    np.save(tmp_path / "old.npy", WANT)
    words = script(tmp_path, f"os.rename({str(tmp_path / 'old.npy')!r}, output)")
    report = go(tmp_path, words, grid)
    assert report.output is None
    assert "a file from elsewhere" in report.error
    assert report.mismatch(SHA).startswith("it opened what was not declared: ")


@kernel
def test_a_library_beside_the_program_wants_to_be_declared(tmp_path: Path, grid: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text("factor = 1")
    write = f"sys.path.insert(0, {str(tmp_path / 'lib')!r}); import helper; np.save(output, values * helper.factor)"
    report = go(tmp_path, script(tmp_path, write), grid)
    assert [Path(f.path).name for f in report.undeclared] == ["helper.py"]
    again = run(
        script(tmp_path, write),
        tmp_path / "2",
        files={"grid": grid},
        image=Image(Format.NPY, SHAPE),
        declared=(tmp_path / "lib",),
    )
    assert (again.undeclared, again.mismatch(SHA)) == ((), "")


def test_what_it_leaves_is_told(tmp_path: Path, grid: Path) -> None:
    write = f"{WRITE}; open('Fdump.bin', 'w').write('x'); open('run.log', 'w').write('x')"
    report = go(tmp_path, script(tmp_path, write), grid, outputs=("*.log",))
    assert report.left == ("Fdump.bin",)


# Commands that cannot work.


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ([], "the program's command is empty"),
        (["", *ALL], "the program's command is empty"),
        (["./toy", *ALL], "the program ./toy is a relative path, but it starts in an empty folder"),
        (["no-such-program", *ALL], "the program no-such-program is not there"),
        (["{grid}", *ALL], "the program itself is a placeholder"),
        (["/bin/cat", "{grid}", "{digest}"], "the command does not say where its floats go; pass {output}"),
        (["/bin/cat", "{grid}", "{output}"], "the command does not say where its effective input goes; pass {digest}"),
        (["/bin/cat", *ALL, "{grid.x}"], "has a placeholder that is none of {grid}, {output}, {digest}"),
        (["/bin/cat", *ALL, "{params}"], "'{params}' has a placeholder that is none of"),
        (["/bin/cat", *ALL, "{}"], "'{}' has a placeholder that is none of"),
        (["/bin/cat", *ALL, "{grid!r:>9}"], "has a placeholder that is none of"),
        (["/bin/cat", *ALL, "{grid"], "braces in '{grid' do not match"),
        (["/bin/cat", *ALL, ">", "x"], "the command is run without a shell, so '>' means nothing"),
        (["/bin/cat", *ALL, "a\0b"], "holds a zero byte"),
    ],
)
def test_bad_commands_are_refused_in_one_sentence(tmp_path: Path, grid: Path, argv: list[str], error: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(argv, ("grid",), Image(Format.NPY, SHAPE))
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput):  # and before anything is made
        Program(argv, tmp_path / "base", files={"grid": grid}, image=Image(Format.NPY, SHAPE))
    assert not (tmp_path / "base").exists()


def test_a_program_that_may_not_be_executed(grid: Path) -> None:
    with pytest.raises(BadInput, match=r"grid.txt may not be executed; make it executable"):
        check([str(grid), *ALL], ("grid",), Image(Format.NPY, SHAPE))


def test_bad_images_are_refused() -> None:
    for image, error in (
        (Image(Format.NPY, ()), "holds nothing"),
        (Image(Format.NPY, (0, 4)), "holds nothing"),
        (Image(Format.NPY, SHAPE, "x"), "only an npz holds arrays with names"),
    ):
        with pytest.raises(BadInput, match=error):
            check(["/bin/cat", *ALL], ("grid",), image)


def test_braces_can_be_written(tmp_path: Path, grid: Path) -> None:
    report = go(tmp_path, [sys.executable, "-c", "import sys; print(sys.argv[4:])", *ALL, "{{x}}", "--a={grid}"], grid)
    assert report.tail.strip() == f"['{{x}}', '--a={grid}']"


def test_the_commands_own_files_are_named(tmp_path: Path) -> None:
    for name in ("toy", "table", "run.py"):
        (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / "toy").chmod(0o755)
    argv = [str(tmp_path / "toy"), str(tmp_path / "run.py"), f"--table={tmp_path}/table", "{output}", "/no/such", "-v"]
    assert files_of(argv) == {
        "program": tmp_path / "toy",
        "program-1-run.py": tmp_path / "run.py",
        "program-2-table": tmp_path / "table",
    }
    assert files_of(["/bin/cat", "/etc/hostname"]) == {}
    (tmp_path / "python3.11").symlink_to(tmp_path / "toy")
    assert list(files_of([str(tmp_path / "python3.11"), str(tmp_path / "run.py")])) == ["program-1-run.py"]


def test_the_report_is_json_enough_for_a_row(tmp_path: Path, grid: Path) -> None:
    report = go(tmp_path, script(tmp_path), grid)
    assert json.loads(json.dumps([report.watch, list(map(str, report.undeclared)), report.left, report.seconds]))
    assert os.path.isabs(report.output or "")


# The page for users.

PAGE = Path(__file__).resolve().parents[2] / "docs" / "external-programs.md"


def block(kind: str, number: int = 0) -> str:
    return PAGE.read_text().split(f"```{kind}\n")[1 + number].split("```")[0]


def test_the_worked_example_is_what_the_kernel_says() -> None:
    from kernels.fcell import digest
    from kernels.fcell.types import Beam, Crystal, Detector, Experiment

    crystal = Crystal((100, 100, 100, 90, 90, 90), (5, 5, 5), default_f=100)
    told = digest.effective_input(Experiment(crystal, Beam(1.0), Detector(512, 512, 0.1, 100.0, 2)))
    assert block("text") == told.text
    assert f"its SHA-256 is `{told.sha256}`" in PAGE.read_text()
    assert json.loads(block("json"))["sha256"][:8] == told.sha256[:8]
    with_grid = [line.split()[0] for line in block("text", 1).splitlines()]
    assert with_grid == [line.split()[0] for line in told.text.splitlines()[-4:]]


@needs_cc
def test_the_c_program_of_the_page_works(tmp_path: Path) -> None:
    source, toy, hkl = tmp_path / "simulate.c", tmp_path / "simulate", tmp_path / "a.hkl"
    source.write_text(block("c"))
    words = [str(compiler()), "-Wall", "-Werror", "-O1", "-o", str(toy), str(source)]
    subprocess.run(words, check=True)
    hkl.write_text("0 0 1 3\n0 0 2 4\n")
    (tmp_path / "params.json").write_text("{}")
    argv = [str(toy), "{params}", "{hkl}", "{output}", "{digest}"]
    files = {"params": tmp_path / "params.json", "hkl": hkl}
    report = run(argv, tmp_path / "base", files=files, image=Image(Format.FLOAT32, (64, 64)))
    assert (report.error, report.undeclared, report.left) == ("", (), ())
    assert report.told.splitlines()[-3:] == [
        "listed 2",
        "listed_sum 7.000000000e+00",
        "listed_sum_squares 2.500000000e+01",
    ]
