"""The continuous mirror: what a lane's attempts write comes to the head, without a gap and without a double line."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from core.rundir import latest_checkpoint, seal_checkpoint, verify_checkpoint
from lanes.agent import news
from lanes.agent.trees import remove_tree
from lanes.carrier import BadHarvest, NoRoom
from lanes.carrier import copy as copy_module
from lanes.context import RunContext
from lanes.transport import LinkDown
from tests.lanes.carrier.support import World, contents
from tests.support import wait_for


def begin(world: World, job: int = 1, files: dict[str, bytes] | None = None) -> Any:
    frozen = world.frozen(job)
    run = world.known(frozen, files)
    world.saw((job, 1))
    return run


def rounds(world: World) -> None:
    while world.carrier._mirror.round():
        pass


def test_a_growing_log_has_no_gap_and_no_double_line(world: World) -> None:
    """Lines are added, the link is cut, the head's process is replaced: at every moment the copy is a beginning."""
    run = begin(world)
    rng = random.Random(5)
    whole = b""
    cuts = 0
    for number in range(120):
        new = b"".join(b"line %d of %d %s\n" % (n, number, b"x" * rng.randrange(400)) for n in range(rng.randrange(9)))
        whole += new
        with run.log.open("ab") as f:
            f.write(new)
        with run.metrics.open("ab") as f:
            f.write(b'{"step": %d}\n' % number)
        how = rng.choice(["", "", "before", "after"])
        world.wire.cut = lambda n, method, how=how: how
        try:
            world.carrier._mirror.round()
        except LinkDown:
            cuts += 1
        if rng.random() < 0.2:
            world.new_carrier()
            world.saw((1, 1))
        here = world.head_run(1).log.read_bytes() if world.head_run(1).log.exists() else b""
        assert whole.startswith(here)
        if not how:
            assert here == whole
    assert cuts > 20
    world.wire.cut = lambda n, method: ""
    rounds(world)
    assert world.head_run(1).log.read_bytes() == whole
    assert world.head_run(1).metrics.read_text().splitlines() == [f'{{"step": {n}}}' for n in range(120)]
    assert world.said == []


def test_only_whole_rows_are_shown(world: World) -> None:
    run = begin(world, files={"metrics.jsonl": b'{"step": 1}\n{"st'})
    rounds(world)
    assert world.head_run(1).metrics.read_bytes() == b'{"step": 1}\n'
    with run.metrics.open("ab") as f:
        f.write(b'ep": 2}\n')
    rounds(world)
    assert world.head_run(1).metrics.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_a_row_longer_than_an_answer_comes_in_pieces(world: World) -> None:
    row = b'{"step": 1, "x": "' + b"y" * (news.LIMIT * 2) + b'"}\n'
    begin(world, files={"metrics.jsonl": row + b'{"step": 2}\n'})
    rounds(world)
    assert world.head_run(1).metrics.read_bytes() == row + b'{"step": 2}\n'


@pytest.mark.parametrize("how", ["shrank", "replaced", "rewritten", "replaced-after-a-restart", "another-beginning"])
def test_a_log_that_is_another_file_begins_anew_and_it_is_said(world: World, how: str) -> None:
    run = begin(world, files={"log.txt": b"the old log\n" * 100})
    rounds(world)
    if how == "shrank":
        run.log.write_bytes(b"short\n")
    elif how == "another-beginning":
        (run.path / "new").write_bytes(b"THE OLD LOG\n" + run.log.read_bytes()[12:] + b"more\n")
        (run.path / "new").replace(run.log)
    elif how == "rewritten":  # the same file, longer, with other bytes
        run.log.write_bytes(b"the new log!\n" * 200)
    else:
        (run.path / "new").write_bytes(b"the new log!\n" * 200)
        (run.path / "new").replace(run.log)
        if how == "replaced-after-a-restart":
            world.new_carrier()
            world.saw((1, 1))
    rounds(world)
    assert world.head_run(1).log.read_bytes() == run.log.read_bytes()
    assert [s for s in world.said if "log.txt of attempt 1.1 is another file now" in s] == world.said != []


def test_small_files_come_and_are_not_sent_again(world: World) -> None:
    run = begin(
        world, files={"started.json": b"{}", "env.json": b'{"a": 1}', "plan.json": b"{}", "heartbeat": b"h" * 64}
    )
    rounds(world)
    here = world.head_run(1)
    assert (here.env.read_bytes(), here.started.read_bytes(), here.plan.read_bytes()) == (b'{"a": 1}', b"{}", b"{}")
    assert not here.heartbeat.exists()
    down = world.wire.down
    rounds(world)
    assert world.wire.down == down
    (run.path / "progress.json").write_bytes(b'{"done": 1}')
    rounds(world)
    assert (here.path / "progress.json").read_bytes() == b'{"done": 1}'
    assert world.wire.down == down + len(b'{"done": 1}')


def test_what_the_head_did_not_begin_is_not_mirrored(world: World) -> None:
    run = begin(world, files={"log.txt": b"x\n"})
    world.head_run(1).spec.unlink()
    rounds(world)
    assert not world.head_run(1).log.exists()
    assert world.wire.calls == []
    begin(world)  # the nonce on the lane is another one than ours: it was made for somebody else
    run.spec.write_text('{"nonce": "another"}')
    rounds(world)
    assert not world.head_run(1).log.exists()


def test_many_attempts_share_one_question(world: World) -> None:
    for job in range(1, 30):
        world.known(world.frozen(job), {"log.txt": b"%d\n" % job * 5000})
    world.saw(*((job, 1) for job in range(1, 30)))
    rounds(world)
    for job in range(1, 30):
        assert world.head_run(job).log.read_bytes() == b"%d\n" % job * 5000
    assert len(world.wire.calls) < 10


def test_the_heads_disk_is_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(world, files={"log.txt": b"line\n" * 1000})
    real = os.write

    def write(fd: int, data: Any) -> int:
        if len(data) > 100:
            return real(fd, bytes(data[:100]))
        if len(data) == 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    world.head_run(1).log.write_bytes(b"line\n")
    with monkeypatch.context() as patched:
        patched.setattr(copy_module.os, "write", write)
        world.lane_run(1).log.write_bytes(b"line\n" * 61)
        with pytest.raises(NoRoom):
            world.carrier._mirror.round()
    assert world.head_run(1).log.read_bytes() == b"line\n", "nothing half"
    rounds(world)
    assert world.head_run(1).log.read_bytes() == b"line\n" * 61


def test_the_thread_follows_and_lives_through_a_cut(world: World) -> None:
    """With the real threads: a frame comes, and after a while the log is here."""
    run = begin(world, files={"log.txt": b"one\n"})
    frame = {"reports": [{"job": 1, "attempt": 1}]}
    world.wire.cut = lambda n, method: "before" if n < 2 else ""
    here = world.head_run(1).log

    def seen(want: bytes) -> bool:
        world.carrier.saw(frame)
        return here.exists() and here.read_bytes() == want

    wait_for(lambda: seen(b"one\n"), "the log to be mirrored")
    with run.log.open("ab") as f:
        f.write(b"two\n")
    wait_for(lambda: seen(b"one\ntwo\n"), "the log to be continued")
    world.carrier.forget(1, 1)
    calls = len(world.wire.named("news"))
    world.carrier.saw(frame)
    assert len(world.wire.named("news")) <= calls + 1


def reports(*jobs: int) -> dict[str, Any]:
    """A frame of the agent that names these."""
    return {"reports": [{"job": job, "attempt": 1} for job in jobs]}


def test_what_is_over_is_forgotten_when_the_lane_has_forgotten_it(world: World) -> None:
    """A controller runs for months: nothing may be kept of every attempt that ever was."""
    mirror = world.carrier._mirror
    mirror._closing.set()  # rounds are made here
    for job in range(1, 40):
        world.known(world.frozen(job), {"log.txt": b"%d\n" % job})
        world.carrier.saw(reports(job))
        rounds(world)
        assert world.head_run(job).log.read_bytes() == b"%d\n" % job
        assert world.carrier.forget(job, 1)["ok"]
    world.carrier.saw(reports())
    assert (len(mirror._over), len(mirror._copies), len(mirror._used)) == (0, 0, 0)


def test_what_is_over_stays_over_as_long_as_the_lane_names_it(world: World) -> None:
    """Late frames: the agent said them before it was told."""
    mirror = world.carrier._mirror
    mirror._closing.set()
    run = begin(world, files={"log.txt": b"one\n"})
    world.carrier.saw(reports(1))
    rounds(world)
    mirror.over(1, 1)
    with run.log.open("ab") as f:
        f.write(b"two\n")
    for _ in range(3):
        world.carrier.saw(reports(1))
        rounds(world)
    assert world.head_run(1).log.read_bytes() == b"one\n"
    assert mirror._over == {(1, 1)}


def test_a_copy_that_is_in_use_is_never_made_twice(world: World) -> None:
    """An answer is under way while its attempt is over, forgotten, and named again by a stale frame."""
    mirror = world.carrier._mirror
    mirror._closing.set()
    run = begin(world, files={"log.txt": b"one\n"})
    world.carrier.saw(reports(1))
    rounds(world)
    with run.log.open("ab") as f:
        f.write(b"two\n")
    inside: list[Any] = []

    def meanwhile(method: str, args: tuple[Any, ...], answer: Any) -> Any:
        if method == "news" and not inside:
            inside.append(mirror.copy(1, 1))
            mirror.over(1, 1)
            world.carrier.saw(reports())
            world.carrier.saw(reports(1))
            inside.append(mirror.copy(1, 1))
            with run.log.open("ab") as f:
                f.write(b"three\n")
            rounds(world)
        return answer

    world.wire.mangle = meanwhile
    rounds(world)
    assert inside[0] is inside[1]
    assert world.head_run(1).log.read_bytes() == b"one\ntwo\nthree\n"
    mirror.over(1, 1)
    assert len(mirror._used) == 1
    inside.clear()
    assert len(mirror._used) == 0, "nobody uses it any more"


# Checkpoints.


def checkpoint(world: World, step: int, data: bytes, job: int = 1, n: int = 1) -> Path:
    run = world.lane_run(job, n)
    tmp = run.checkpoints / f".{step}.tmp"
    (tmp / "deep").mkdir(parents=True)
    (tmp / "state").write_bytes(data)
    (tmp / "deep" / "more").write_bytes(b"more")
    final = run.checkpoints / str(step)
    remove_tree(final)
    seal_checkpoint(tmp, final, step=step, key=f"key-{job}", attempt=n, meta={})
    return final


def test_completed_checkpoints_come_newest_first_and_whole(world: World) -> None:
    run = begin(world)
    big = os.urandom(3 << 20)
    checkpoint(world, 2, b"two")
    there = checkpoint(world, 10, big)
    (run.checkpoints / ".11.tmp").mkdir()
    (run.checkpoints / ".11.tmp" / "state").write_bytes(b"half")
    (run.checkpoints / "12").mkdir()
    (run.checkpoints / "12" / "state").write_bytes(b"no manifest yet")
    rounds(world)
    seen = []
    world.wire.mangle = lambda method, args, answer: (seen.append(sorted(os.listdir(here.checkpoints))), answer)[1]
    here = world.head_run(1)
    assert world.carrier._mirror.checkpoints_round()
    assert contents(here.checkpoints / "10") == contents(there)
    assert all(s == [] for s in seen), "not before it is whole"
    found, notes = latest_checkpoint([here.checkpoints], key="key-1")
    assert (found is not None and found.step, notes) == (10, [])
    down = world.wire.down
    rounds(world)
    world.carrier._mirror.checkpoints_round()
    assert world.wire.down == down, "not again"
    world.new_carrier()
    world.saw((1, 1))
    rounds(world)
    world.carrier._mirror.checkpoints_round()
    assert world.wire.down - down < 1000, "after a restart only its manifest is looked at"


def test_a_checkpoint_goes_on_where_the_link_went(world: World) -> None:
    begin(world)
    big = os.urandom(8 << 20)
    there = checkpoint(world, 5, big)
    rounds(world)
    world.wire.cut = lambda n, method: "after" if len(world.wire.named("read")) > 9 else ""
    with pytest.raises(LinkDown):
        world.carrier._mirror.checkpoints_round()
    world.wire.cut = lambda n, method: ""
    begun = world.wire.down
    assert begun > 2 << 20
    assert not (world.head_run(1).checkpoints / "5").exists()
    world.new_carrier()
    world.saw((1, 1))
    rounds(world)
    assert world.carrier._mirror.checkpoints_round()
    assert contents(world.head_run(1).checkpoints / "5") == contents(there)
    assert world.wire.down < (8 << 20) + (3 << 20)


def test_a_checkpoint_that_is_written_again_comes_again_and_a_dropped_one_goes(world: World) -> None:
    begin(world)
    checkpoint(world, 1, b"one")
    rounds(world)
    assert world.carrier._mirror.checkpoints_round()
    there = checkpoint(world, 1, b"one again")
    rounds(world)
    assert world.carrier._mirror.checkpoints_round()
    here = world.head_run(1).checkpoints
    assert contents(here / "1") == contents(there)
    checkpoint(world, 2, b"two")
    rounds(world)
    assert world.carrier._mirror.checkpoints_round()
    assert sorted(os.listdir(here)) == ["1", "2"]
    remove_tree(there)
    checkpoint(world, 3, b"three")
    rounds(world)
    assert world.carrier._mirror.checkpoints_round()
    assert sorted(os.listdir(here)) == ["2", "3"]
    remove_tree(world.lane_run(1).checkpoints)  # nothing listed is no reason to drop the last ones
    rounds(world)
    world.carrier._mirror.checkpoints_round()
    assert sorted(os.listdir(here)) == ["2", "3"]


def test_what_a_kind_lets_go_of_goes_here_too_and_is_never_called_damaged(world: World) -> None:
    """A kind that keeps two, and a link that brings one now and then: two are here as soon as two came."""
    run = begin(world)
    spec = {"job": 1, "attempt": 1, "key": "key-1"}
    ctx, here = RunContext(run, spec, None), world.head_run(1).checkpoints
    seen = []
    for step in range(1, 12):
        with ctx.save_checkpoint(step, keep=2) as folder:
            (folder / "state").write_text(f"state of {step}")
        if step in (1, 4, 5, 9, 11):
            rounds(world)
            assert world.carrier._mirror.checkpoints_round()
            seen.append(sorted(map(int, os.listdir(here))))
    assert seen == [[1], [1, 4], [4, 5], [5, 9], [9, 11]]
    assert all(verify_checkpoint(here / str(step), key="key-1")[0] for step in seen[-1])
    assert world.said == []
    # One goes while it is read: the newest that is left is brought, and nothing is said.
    rounds(world)
    with ctx.save_checkpoint(12, keep=2) as folder:
        (folder / "state").write_text("state of 12")
    rounds(world)
    remove_tree(run.checkpoints / "12")
    while world.carrier._mirror.checkpoints_round():
        pass
    assert sorted(map(int, os.listdir(here))) == [9, 11]
    assert world.said == []


@pytest.mark.parametrize("what", ["other job", "hostile", "damaged", "vanishes"])
def test_a_bad_checkpoint_is_passed_over_and_an_older_one_comes(world: World, what: str) -> None:
    begin(world)
    checkpoint(world, 1, b"good")
    bad = checkpoint(world, 2, os.urandom(1000))
    text = (bad / "manifest.json").read_text()
    if what == "other job":
        (bad / "manifest.json").write_text(text.replace("key-1", "key-9"))
    elif what == "hostile":
        (bad / "manifest.json").write_text(text.replace('"state"', '"../../../x"'))
        (world.lane_run(1).path.parent / "x").write_bytes((bad / "state").read_bytes())  # as it was promised
    elif what == "damaged":
        (bad / "state").write_bytes(os.urandom(1000))
    else:
        (bad / "state").unlink()
    rounds(world)
    while world.carrier._mirror.checkpoints_round():
        pass
    here = world.head_run(1)
    assert os.listdir(here.checkpoints) == ["1"]
    assert not (here.path.parent / "x").exists()
    checkpoint(world, 3, b"next")
    rounds(world)
    assert world.carrier._mirror.checkpoints_round()
    assert "3" in os.listdir(here.checkpoints)


def test_catching_up_brings_all_that_is_left(world: World) -> None:
    run = begin(world, files={"log.txt": b"line\n" * 200_000, "metrics.jsonl": b'{"step": 1}\n'})
    checkpoint(world, 4, b"four")
    there = checkpoint(world, 5, os.urandom(3 << 20))
    (checkpoint(world, 6, b"six") / "state").write_bytes(b"bad")
    world.wire.cut = lambda n, method: "after" if method == "read" and len(world.wire.named("read")) == 4 else ""
    with pytest.raises(LinkDown):
        world.carrier.catch_up(1, 1)
    world.wire.cut = lambda n, method: ""
    world.carrier.catch_up(1, 1)
    here = world.head_run(1)
    assert here.log.read_bytes() == run.log.read_bytes()
    assert here.metrics.read_bytes() == b'{"step": 1}\n'
    assert contents(here.checkpoints / "5") == contents(there)
    assert "6" not in os.listdir(here.checkpoints)


def test_a_fetch_takes_over_from_the_mirror(world: World) -> None:
    """What the mirror had begun is gone on with, and nothing is written by it while the seal is fetched."""
    from core.rundir import seal

    run = begin(world, files={"log.txt": b"log\n"})
    checkpoint(world, 5, os.urandom(6 << 20))
    rounds(world)
    reached, go = threading.Event(), threading.Event()

    def mangle(method: str, args: tuple[Any, ...], answer: Any) -> Any:
        if method == "read" and not go.is_set() and args[1] >= 2 << 20:
            reached.set()
            assert go.wait(30)
        return answer

    world.wire.mangle = mangle
    worker = threading.Thread(target=lambda: world.carrier._mirror._guarded(world.carrier._mirror.checkpoints_round))
    worker.start()
    assert reached.wait(30)
    seal(run, outcome={"cause": "ok", "message": ""})
    fetcher = threading.Thread(target=world.carrier.fetch, args=(1, 1))
    fetcher.start()
    wait_for(lambda: world.carrier._mirror.copy(1, 1).fetching, "the fetch to begin")
    go.set()
    fetcher.join(60)
    worker.join(60)
    assert contents(world.head_run(1).checkpoints) == contents(run.checkpoints)
    assert world.head_run(1).manifest.exists()
    assert world.wire.down < 8 << 20
    rounds(world)  # it is over: no more questions about it
    assert world.carrier._mirror.copy(1, 1).wanted() is None


def test_news_that_come_after_the_fetch_change_nothing(world: World) -> None:
    from core.rundir import seal

    run = begin(world, files={"log.txt": b"log\n", "env.json": b"{}"})
    seal(run, outcome={"cause": "ok", "message": ""})
    world.carrier.fetch(1, 1)
    copy = world.carrier._mirror.copy(1, 1)
    copy.take("log.txt", {"inode": 1, "size": 8, "offset": 4, "length": 5}, b"late\n")
    copy.take("env.json", {"signature": "s", "length": 4}, b"late")
    assert world.head_run(1).log.read_bytes() == b"log\n"
    assert world.head_run(1).env.read_bytes() == b"{}"


def test_no_seal_no_harvest_while_it_runs(world: World) -> None:
    begin(world, files={"log.txt": b"x\n"})
    with pytest.raises(BadHarvest):
        world.carrier.fetch(1, 1)
    rounds(world)
    assert world.head_run(1).log.read_bytes() == b"x\n", "the mirror goes on"
