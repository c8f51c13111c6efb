"""`lab results --plot`: what is drawn, looked at in the figure itself and not in its pixels."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from core.errors import BadInput, Exit
from core.home import Home
from core.journal import Journal, Role
from lab import main
from lab.drawing import draw
from lab.plot import Asked, Plot, plan
from tests.core.pooled import batch, end, sweep

AXES = ("size", "backend", "seed")
HEADLINE = {"lab.headline": "backend,size,dx,max_rel,seconds"}


def table(**changed: Any) -> pa.Table:
    """Two backends at three sizes, with three seeds each: errors that grow with the size."""
    rows = [
        {"size": s, "backend": b, "seed": seed, "dx": 0.5, "max_rel": 1e-7 * s * (1 + seed) * (1 + (b == "xla"))}
        for s in (4, 16, 64)
        for b in ("torch", "xla")
        for seed in (0, 1, 2)
    ]
    columns = {n: [r[n] for r in rows] for n in rows[0]} | {"seconds": [0.1] * 18, "job": list(range(18))} | changed
    return pa.table(columns).replace_schema_metadata(HEADLINE)


def planned(rows: pa.Table, x: str | None = None, y: str | None = None, by: str | None = None, **more: Any) -> Plot:
    return plan(rows, Asked(x, y, by), **{"axes": AXES, "title": "sweep 1: toy", **more})


def lines(figure: Figure) -> dict[str, Any]:
    """The lines of the legend, by name."""
    (ax,) = figure.axes
    legend = ax.get_legend()
    assert legend is not None
    return dict(zip((t.get_text() for t in legend.get_texts()), legend.get_lines(), strict=True))


def test_columns_are_chosen_as_a_person_would() -> None:
    p = planned(table())
    assert (p.x, p.y, p.by) == ("size", "max_rel", "backend")  # dx is the same everywhere, seeds are repeats
    assert [line.name for line in p.lines] == ["torch", "xla"]
    torch = p.lines[0]
    assert torch.places.tolist() == [4, 16, 64]
    assert torch.middle.tolist() == pytest.approx([8e-7, 32e-7, 128e-7])
    assert torch.low.tolist() == pytest.approx([4e-7, 16e-7, 64e-7])
    assert torch.high.tolist() == pytest.approx([12e-7, 48e-7, 192e-7])
    assert torch.repeats
    assert (p.log_x, p.log_y, p.floor, p.rows) == (True, True, None, 18)
    other = planned(table(), x="seed", y="seconds", by="size")
    assert (other.x, other.y, other.by, other.log_x, other.log_y) == ("seed", "seconds", "size", False, False)
    assert [line.name for line in other.lines] == ["4", "16", "64"]


def test_without_a_sweep_the_headline_decides() -> None:
    p = plan(table(), Asked())
    assert (p.x, p.y, p.by) == ("backend", "max_rel", None)
    digests = table(checksum=[f"{i:064x}" for i in range(18)]).select(["job", "checksum", "max_rel"])
    assert plan(digests, Asked(x="job")).by is None
    assert plan(digests.append_column("k", pa.array(["a", "b"] * 9)), Asked(x="job")).by == "k"


def test_the_figure_shows_names_and_numbers() -> None:
    figure = draw(planned(table()))
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("size", "max_rel")
    assert ax.get_title("left") == "sweep 1: toy"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    shown = lines(figure)
    assert list(shown) == ["torch", "xla"]
    assert (
        len({line.get_color() for line in shown.values()}) == len({line.get_marker() for line in shown.values()}) == 2
    )
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) == 3]
    assert [line.get_ydata()[0] for line in drawn] == pytest.approx([8e-7, 16e-7])
    assert len(ax.collections) == 2  # a band for each
    assert [t.get_text() for t in ax.get_xticklabels()] == ["4", "16", "64"]
    single = draw(planned(table().filter(pa.array([i % 3 == 0 for i in range(18)]))))
    assert not single.axes[0].collections  # nothing repeats: no band


def test_zeros_have_a_place_on_a_log_scale() -> None:
    values = [0.0, 1e-7, 1e-7] * 6
    p = planned(table(max_rel=values))
    assert p.floor is not None
    assert 0 < p.floor < 1e-7
    assert "6 rows with exactly 0 are drawn on the line 0" in p.notes
    (ax,) = draw(p).axes
    assert min(np.min(line.get_ydata()) for line in ax.get_lines() if len(line.get_xdata()) > 2) == p.floor
    assert ax.get_yticklabels()[0].get_text() == "0"
    assert ax.get_ylim()[0] < p.floor
    assert planned(table(max_rel=[1e-7, 2e-7, 3e-7] * 6)).floor is None
    below = planned(table(max_rel=[-1e-7, 0.0, 3e-7] * 6))
    assert (below.log_y, below.floor) == (False, None)


def test_the_median_on_a_log_scale_was_measured() -> None:
    rows = table(max_rel=[0.0, 1e-7, 1e-7] * 6).filter(pa.array([i % 3 < 2 for i in range(18)]))
    assert planned(rows).lines[0].middle.tolist() == [1e-7] * 3
    linear = table(gain=[0.0, 4.0, 9.0] * 6).filter(pa.array([i % 3 < 2 for i in range(18)]))
    assert planned(linear, y="gain").lines[0].middle.tolist() == [2.0] * 3


def test_a_wide_range_is_logarithmic_and_a_narrow_one_is_not() -> None:
    assert planned(table(gain=[1.0, 10.0, 101.0] * 6), y="gain").log_y
    assert not planned(table(gain=[1.0, 10.0, 99.0] * 6), y="gain").log_y
    assert not planned(table(max_rel=[0.5, 0.6, 0.7] * 6)).log_y


def test_words_stand_side_by_side() -> None:
    sizes = ["[1]", "[1,4]", '["a"]'] * 6
    p = planned(table(size=sizes), by="backend")
    assert p.words == ("[1]", "[1,4]", "a")
    (ax,) = draw(p).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["[1]", "[1,4]", "a"]
    firsts = {line.get_xdata()[0] for line in ax.get_lines() if len(line.get_xdata())}
    assert len(firsts) == 2  # the lines stand beside each other
    alone = draw(planned(table(size=sizes, backend=["torch"] * 18))).axes[0]
    assert {line.get_xdata()[0] for line in alone.get_lines() if len(line.get_xdata())} == {0.0}


def test_a_kind_says_which_rows_a_figure_shows() -> None:
    rows = table(role=["candidate", "mutant", "gate"] * 6)
    marked = rows.replace_schema_metadata({**HEADLINE, "lab.plot": "role=candidate"})
    p = planned(marked)
    assert p.rows == 6
    assert p.notes[0] == "only rows whose role is candidate: --where chooses others"
    assert planned(marked, narrowed=True).rows == planned(rows).rows == 18
    nobody = rows.replace_schema_metadata({**HEADLINE, "lab.plot": "role=nobody"})
    assert planned(nobody).rows == 18


def test_values_that_are_none_are_left_out_and_said() -> None:
    values = [None, math.nan, math.inf, *([1e-7] * 15)]
    p = planned(table(max_rel=values))
    assert p.rows == 15
    assert p.notes[0] == "3 rows without a finite max_rel left out"
    assert not [n for n in planned(table()).notes if "left out" in n]


@pytest.mark.parametrize(
    ("rows", "asked", "said"),
    [
        (table(), Asked(x="siz"), "--x names 'siz', which is no column"),
        (table(), Asked(y="backend"), "'backend' is no number"),
        (table(), Asked(by="job"), "'job' has 18 values: too many lines"),
        (table().select(["backend", "job"]), Asked(), "nothing numeric"),
        (table(max_rel=[math.nan] * 18), Asked(y="max_rel"), "no row has a finite number in 'max_rel'"),
        (table().slice(0, 0), Asked(), "no rows to draw"),
        (table(lists=[[1]] * 18), Asked(x="lists"), "'lists' holds lists"),
    ],
)
def test_refusals(rows: pa.Table, asked: Asked, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        plan(rows, asked, axes=AXES)


def test_very_many_rows_are_lines_and_bands() -> None:
    n = 20_000
    rows = pa.table({"x": np.arange(n) % 100, "gain": np.linspace(1.0, 2.0, n)})
    (ax,) = draw(plan(rows, Asked("x", "gain"))).axes
    assert max(len(line.get_xdata()) for line in ax.get_lines()) == 100


# As a user types it.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Sweep 1 over two axes, with two rows a cell, and sweep 8 whose table has no number of its own."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("LAB_HOME", str(home.path))
    monkeypatch.setenv("LAB_NO_START", "1")
    monkeypatch.chdir(tmp_path)
    with Journal.open(home, Role.CONTROLLER, create=True) as journal, journal.transaction() as tx:
        s = sweep(tx, {"size": [8, 16], "backend": ["a", "b", "c"]}, kind="parity")
        batch(tx, s + 1, s + 6, lambda j: [{"k": "p", "err": j / 4}, {"k": "q", "err": j / 8}])
        end(tx, s)
        t = sweep(tx, {"n": ["u", "v"]})
        batch(tx, t + 1, t + 2, lambda j: {"word": str(j)}, table="words")
        end(tx, t)
    return home


def out(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    code = main.main(list(args))
    seen = capsys.readouterr()
    assert code == 0, seen.err
    return seen.out


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main.main(list(args)) == Exit.BAD_INPUT
    return capsys.readouterr().err


def test_a_figure_of_a_sweep(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    said = out(capsys, "results", "1", "--plot", "fig.png").splitlines()
    assert said[0] == "err over size, by backend: 12 rows drawn to fig.png"
    first = Path("fig.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    out(capsys, "results", "1", "--plot", "fig.png")
    assert Path("fig.png").read_bytes() == first  # the same rows, the same bytes
    answer = json.loads(out(capsys, "results", "1", "--plot", "fig.svg", "--by", "k", "--where", "err > 1", "--json"))
    assert (answer["schema"], answer["by"], answer["lines"]) == ("lab.plot/1", "k", ["p"])
    assert answer["title"] == "sweep 1: parity size × backend, 6 cells, where err > 1"
    assert b"<svg" in Path("fig.svg").read_bytes()
    out(capsys, "results", "--sql", "select k, avg(err) m from t group by k", "--plot", "q.pdf", "--x", "k", "--y", "m")
    assert Path("q.pdf").read_bytes().startswith(b"%PDF")
    assert out(capsys, "results", "1", "--plot", "fig.png", "-q") == "fig.png\n"


def test_a_figure_that_cannot_be(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ending of fig.gif is none of" in refused(capsys, "results", "1", "--plot", "fig.gif")
    assert "--x was given without --plot" in refused(capsys, "results", "1", "--x", "size")
    assert "together with --output" in refused(capsys, "results", "1", "--plot", "f.png", "-o", "f.csv")
    sql = ("results", "--sql", "select 1 as one", "--plot", "f.png", "--y", "one")
    assert "needs --x and --y, and --x is missing" in refused(capsys, *sql)
    assert "nothing numeric" in refused(capsys, "results", "8", "--plot", "f.png")
    assert "choose one with --table" in refused(capsys, "results", "--plot", "f.png")
    assert "did you mean 'err'" in refused(capsys, "results", "1", "--plot", "f.png", "--y", "er")
    assert not list(Path.cwd().glob("*.png"))
    assert not list(Path.cwd().glob(".*tmp"))


def test_no_window_is_ever_opened() -> None:
    """And a table for people does not wait for what draws."""
    code = "import sys; import lab.drawing; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
    code = "import sys; import lab.commands.results, lab.plot; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
