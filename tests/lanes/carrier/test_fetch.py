"""From the lane: what was sealed comes back as it was, or not at all, whatever the link does."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.rundir import seal, verify_manifest
from lanes.agent.trees import remove_tree
from lanes.carrier import BadHarvest, NoRoom
from lanes.carrier import pull as pull_module
from lanes.transport import LinkDown
from tests.lanes.carrier.support import World, contents

SEALED = ("spec.json", "log.txt", "metrics.jsonl", "artifacts", "results", "checkpoints", "manifest.json")


def files() -> dict[str, bytes]:
    return {
        "log.txt": b"a line\n" * 300,
        "metrics.jsonl": b"".join(b'{"step": %d}\n' % n for n in range(200)),
        "artifacts/model.bin": os.urandom(6000),
        "artifacts/deep/er/notes.txt": b"notes\n",
        "artifacts/empty": b"",
        "results/rows.arrow": os.urandom(900),
        "checkpoints/3/state": os.urandom(2000),
        **{f"artifacts/many/{n}.txt": b"%d" % n for n in range(20)},
    }


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from lanes.carrier import fetch

    monkeypatch.setattr(pull_module, "BLOCK", 700)
    monkeypatch.setattr(fetch, "_SMALL", 500)
    monkeypatch.setattr(fetch, "_AT_ONCE", 40)


def sealed(world: World, job: int = 1, **changes: Any) -> dict[str, Any]:
    frozen = world.frozen(job, **changes)
    world.sealed(frozen, files())
    (world.lane_run(job).artifacts / "latest").symlink_to("deep/er")
    reseal(world, job)
    return frozen


def reseal(world: World, job: int = 1) -> None:
    run = world.lane_run(job)
    run.manifest.unlink()
    seal(run, outcome={"cause": "ok", "message": "", "exit_code": 0})


def same(world: World, job: int = 1) -> None:
    """What was sealed is the same on both sides, and nothing half is left."""
    here, there = world.head_run(job), world.lane_run(job)
    for name in SEALED:
        one, other = here.path / name, there.path / name
        assert (contents(one) if one.is_dir() else one.read_bytes()) == (
            contents(other) if other.is_dir() else other.read_bytes()
        ), name
    assert verify_manifest(here) == []
    assert not (here.path / ".partial").exists()


def test_all_that_was_sealed_comes(world: World) -> None:
    sealed(world)
    world.carrier.fetch(1, 1)
    same(world)
    world.wire.cut = lambda n, method: "before"
    world.new_carrier().fetch(1, 1)  # it is here: nobody is asked
    assert os.readlink(world.head_run(1).artifacts / "latest") == "deep/er"


@pytest.mark.parametrize("how", ["before", "after"])
def test_the_link_cut_at_every_call(world: World, small_blocks: None, how: str) -> None:
    frozen = sealed(world)
    world.carrier.fetch(1, 1)
    calls, whole = len(world.wire.calls), world.wire.down
    assert calls > 25
    manifest = world.lane_run(1).manifest.stat().st_size
    spec = world.head_run(1).spec.read_bytes()
    for at in range(calls):
        remove_tree(world.head_run(1).path)
        world.head_run(1).create()
        world.head_run(1).spec.write_bytes(spec)
        world.wire.calls, world.wire.down = [], 0
        world.new_carrier()
        world.wire.cut = lambda n, method, at=at: how if n == at else ""
        cuts = 0
        while True:
            try:
                world.carrier.fetch(1, 1)
                break
            except LinkDown:
                cuts += 1
                assert not world.head_run(1).manifest.exists(), "the manifest comes last"
                if at % 2:
                    world.new_carrier()
        assert cuts == 1
        same(world)
        # The manifest is read again by each try, and the answers that were under way beside the lost one are gone.
        assert world.wire.down <= whole + manifest + 3 * 700, (at, world.wire.calls[at][0])
    assert frozen["job"] == 1


def test_a_large_file_goes_on_at_its_offset(world: World) -> None:
    frozen = world.frozen(1)
    size = 20 << 20
    world.sealed(frozen, {"artifacts/big.bin": os.urandom(1 << 20) * 20})
    world.wire.cut = lambda n, m: "after" if m == "read" and len(world.wire.named("read")) == 30 else ""
    with pytest.raises(LinkDown):
        world.carrier.fetch(1, 1)
    world.wire.cut = lambda n, m: ""
    begun = world.wire.down
    assert begun > 8 << 20
    world.new_carrier()
    world.wire.down = 0
    world.carrier.fetch(1, 1)
    assert world.wire.down < size - begun + (3 << 20)
    assert (world.head_run(1).artifacts / "big.bin").read_bytes() == (
        world.lane_run(1).artifacts / "big.bin"
    ).read_bytes()


def test_what_is_here_and_right_is_not_fetched_again(world: World) -> None:
    sealed(world)
    run = world.head_run(1)
    data = files()
    there = world.lane_run(1)
    (run.artifacts / "model.bin").write_bytes((there.artifacts / "model.bin").read_bytes())
    run.metrics.write_bytes((there.metrics).read_bytes())
    wrong = bytearray((there.results / "rows.arrow").read_bytes())
    wrong[5] ^= 1
    (run.results / "rows.arrow").write_bytes(bytes(wrong))  # as long, and not right
    run.log.write_bytes(data["log.txt"][:1000])
    world.carrier.fetch(1, 1)
    same(world)
    read = [args[0].rsplit("/", 1)[-1] for args in world.wire.named("read")]
    assert "model.bin" not in read
    assert "metrics.jsonl" not in read
    assert [args[1] for args in world.wire.named("read") if args[0].endswith("log.txt")] == [1000]


def test_a_mirrored_log_that_is_not_the_sealed_one_is_fetched_anew(world: World) -> None:
    sealed(world)
    world.head_run(1).log.write_bytes(b"something else")
    world.carrier.fetch(1, 1)
    same(world)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("small", [True, False])
def test_a_byte_that_flips_on_the_way(world: World, times: int, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: it is fetched again. Again: it is refused."""
    from lanes.carrier import fetch

    if not small:
        monkeypatch.setattr(fetch, "_SMALL", 0)
    sealed(world)
    flips = []

    def mangle(method: str, args: tuple[Any, ...], answer: Any) -> Any:
        if method == "read" and args[0].endswith("model.bin") and len(flips) < (times if not small else times - 1):
            flips.append(method)
            return answer[:10] + bytes([answer[10] ^ 1]) + answer[11:]
        if method == "read_many" and small:
            return {**answer, "data": bytes([answer["data"][0] ^ 1]) + answer["data"][1:]}
        return answer

    world.wire.mangle = mangle
    if times == 1 or small:
        world.carrier.fetch(1, 1)
        same(world)
    else:
        with pytest.raises(BadHarvest, match=r"model\.bin of attempt 1\.1 is not on the lane as it was sealed"):
            world.carrier.fetch(1, 1)
        assert not world.head_run(1).manifest.exists()
        assert not (world.head_run(1).artifacts / "model.bin").exists()


def test_blocks_that_come_short_are_read_on(world: World, small_blocks: None) -> None:
    sealed(world)
    shorter = iter([1, 300, 0, 699, 2] * 200)
    world.wire.mangle = lambda method, args, answer: answer[: next(shorter) or 700] if method == "read" else answer
    world.carrier.fetch(1, 1)
    same(world)


def test_answers_that_come_late_and_out_of_order(world: World, small_blocks: None) -> None:
    import threading

    sealed(world)
    first = threading.Event()  # the block at 0 comes only when the one behind it has come
    seen = []

    def mangle(method: str, args: tuple[Any, ...], answer: Any) -> Any:
        if method == "read" and args[0].endswith("model.bin"):
            if args[1] == 0:
                assert first.wait(30)
            elif args[1] == 700:
                first.set()
            seen.append(args[1])
        return answer

    world.wire.mangle = mangle
    world.carrier.fetch(1, 1)
    same(world)
    assert seen[0] != 0


def test_a_lane_with_too_much_to_do_is_asked_again(world: World) -> None:
    sealed(world)

    class Busy(Exception): ...

    def read(*args: Any) -> bytes:
        raise Busy("64 calls are under way on this lane")

    world.agent.read = read  # type: ignore[method-assign]
    with pytest.raises(LinkDown, match="64 calls"):
        world.carrier.fetch(1, 1)
    del world.agent.read  # type: ignore[method-assign]
    world.carrier.fetch(1, 1)
    same(world)


def test_one_file_can_be_fetched_alone(world: World) -> None:
    from tests.lanes.carrier.support import sha

    sealed(world)
    there = world.lane_run(1).artifacts / "model.bin"
    data = there.read_bytes()
    here = world.folder / "alone.bin"
    world.carrier.fetch_file(str(there), str(here), len(data), sha(data))
    assert here.read_bytes() == data
    with pytest.raises(BadHarvest, match="not what it was said to be"):
        world.carrier.fetch_file(str(there), str(here), len(data), sha(b"other"))
    assert here.read_bytes() == data
    with pytest.raises(BadHarvest, match="cannot be read there"):
        world.carrier.fetch_file("/etc/passwd", str(here), 10, sha(b"other"))


def test_a_file_that_was_changed_after_the_seal_is_refused(world: World) -> None:
    sealed(world)
    (world.lane_run(1).artifacts / "deep" / "er" / "notes.txt").write_text("nodes\n")
    with pytest.raises(BadHarvest, match="not on the lane as it was sealed"):
        world.carrier.fetch(1, 1)


@pytest.mark.parametrize("cut", [0, 5999])
def test_a_file_that_is_shorter_than_it_was_sealed_is_refused(world: World, cut: int) -> None:
    sealed(world)
    os.truncate(world.lane_run(1).artifacts / "model.bin", cut)
    with pytest.raises(BadHarvest, match=r"model\.bin"):
        world.carrier.fetch(1, 1)


def test_a_file_that_is_missing_is_refused(world: World) -> None:
    sealed(world)
    (world.lane_run(1).artifacts / "model.bin").unlink()
    with pytest.raises(BadHarvest, match=r"model\.bin is not on the lane"):
        world.carrier.fetch(1, 1)


def executable(world: World, folder: Path) -> set[str]:
    return {n for n, to in contents(folder).items() if not to.startswith("link:") and os.access(folder / n, os.X_OK)}


def test_programs_stay_programs(world: World, small_blocks: None) -> None:
    """In one piece with others, in many pieces, and found here already after the head died in the middle."""
    frozen = world.frozen(1)
    world.sealed(frozen, files())
    programs = {"model.bin", "deep/er/notes.txt", "many/3.txt", "empty"}
    for name in programs:
        (world.lane_run(1).artifacts / name).chmod(0o700)
    (world.lane_run(1).log).chmod(0o777)
    reseal(world)
    (world.head_run(1).artifacts / "many").mkdir(parents=True)
    (world.head_run(1).artifacts / "many" / "3.txt").write_bytes(b"3")
    world.carrier.fetch(1, 1)
    same(world)
    here = world.head_run(1)
    assert executable(world, here.artifacts) == programs
    assert not os.access(here.results / "rows.arrow", os.X_OK)
    assert here.log.stat().st_mode & 0o111 == 0, "only what the job made for others"


def test_a_seal_of_an_older_agent_has_no_programs(world: World) -> None:
    sealed(world)
    manifest = json.loads(world.lane_run(1).manifest.read_text())
    del manifest["executable"]
    world.lane_run(1).manifest.write_text(json.dumps(manifest))
    world.carrier.fetch(1, 1)
    assert executable(world, world.head_run(1).artifacts) == set()


@pytest.mark.parametrize(
    "said", [["log.txt"], ["artifacts/none"], ["../../x"], ["artifacts/latest"], [3], 5, [["a"]], ["/bin/sh"]]
)
def test_only_artifacts_can_be_programs(world: World, said: Any) -> None:
    sealed(world)
    tampered(world, executable=said)
    with pytest.raises(BadHarvest, match="cannot be understood"):
        world.carrier.fetch(1, 1)
    assert not world.head_run(1).manifest.exists()


# What is not this attempt's result.


def tampered(world: World, **changes: Any) -> None:
    run = world.lane_run(1)
    run.manifest.write_text(json.dumps({**json.loads(run.manifest.read_text()), **changes}))


@pytest.mark.parametrize(
    ("name", "value"), [("job", 2), ("attempt", 2), ("nonce", "other"), ("key", "other"), ("nonce", None)]
)
def test_a_foreign_seal_is_refused(world: World, name: str, value: Any) -> None:
    frozen = sealed(world)
    tampered(world, **{name: value})
    with pytest.raises(BadHarvest, match=rf"the seal on the lane is of {name} {value}, not"):
        world.carrier.fetch(1, 1)
    assert not world.head_run(1).manifest.exists()
    expect = {"nonce": frozen["nonce"], "key": frozen["key"]}
    world.head_run(1).spec.unlink()  # after the head lost its own note, the controller still knows
    with pytest.raises(BadHarvest, match=f"of {name} {value}, not"):
        world.carrier.fetch(1, 1, expect)
    tampered(world, **{name: {"job": 1, "attempt": 1, **expect}[name]})
    world.carrier.fetch(1, 1, expect)
    same(world)


def test_an_empty_harvest_is_refused(world: World) -> None:
    frozen = world.frozen(1)
    run = world.known(frozen, {"log.txt": b"never sealed\n"})
    with pytest.raises(BadHarvest, match=r"manifest\.json is not on the lane"):
        world.carrier.fetch(1, 1)
    for blob in (b"", b"{}", b"[]", b"\xff", b"null", b'{"files": 3}', b'{"files": {"x": 3}}'):
        run.manifest.write_bytes(blob)
        with pytest.raises(BadHarvest, match="cannot be understood"):
            world.carrier.fetch(1, 1)
    mine = {"job": 1, "attempt": 1, "nonce": frozen["nonce"], "key": frozen["key"], "outcome": {"cause": "ok"}}
    run.manifest.write_text(json.dumps({**mine, "files": {}}))
    with pytest.raises(BadHarvest, match="seals nothing"):
        world.carrier.fetch(1, 1)
    assert not world.head_run(1).manifest.exists()
    remove_tree(run.path)
    with pytest.raises(BadHarvest, match="not on the lane"):
        world.carrier.fetch(1, 1)


@pytest.mark.parametrize("name", ["expect", "params", "outputs", "grant", "entry"])
def test_a_run_by_another_spec_is_refused(world: World, name: str) -> None:
    frozen = sealed(world)
    ours = {**frozen, name: {"rows": {"t": 5}}}
    world.head_run(1).spec.write_text(json.dumps(ours))
    with pytest.raises(BadHarvest, match=f"its {name} differs"):
        world.carrier.fetch(1, 1)
    world.head_run(1).spec.write_text(json.dumps({**frozen, "wake": "elsewhere", "base_env": {}}))
    world.carrier.fetch(1, 1)
    same(world)


@pytest.mark.parametrize(
    "name",
    ["../spec.json", "/etc/passwd", "artifacts/../../x", "work/x", "heartbeat", "artifacts", "artifacts//x", "x", ""],
)
def test_hostile_names_in_a_seal(world: World, name: str) -> None:
    sealed(world)
    run = world.lane_run(1)
    manifest = json.loads(run.manifest.read_text())
    manifest["files"][name] = manifest["files"]["log.txt"]
    run.manifest.write_text(json.dumps(manifest))
    before = contents(world.home.path)
    with pytest.raises(BadHarvest, match="cannot be understood"):
        world.carrier.fetch(1, 1)
    assert contents(world.home.path) == before, "nothing was written"


def test_nothing_is_written_through_a_link(world: World) -> None:
    """A seal that names a link and a file below it; and a link that lay on the head."""
    sealed(world)
    run = world.lane_run(1)
    manifest = json.loads(run.manifest.read_text())
    outside = world.folder / "outside"
    outside.mkdir()
    bad = {**manifest["files"], "artifacts/deep": [f"link:{outside}", 0]}
    run.manifest.write_text(json.dumps({**manifest, "files": bad}))
    with pytest.raises(BadHarvest, match="both a file and a folder"):
        world.carrier.fetch(1, 1)
    run.manifest.write_text(json.dumps(manifest))
    (world.head_run(1).artifacts / "deep").symlink_to(outside)
    world.carrier.fetch(1, 1)
    assert list(outside.iterdir()) == []
    assert not (world.head_run(1).artifacts / "deep").is_symlink()
    for name in ("results/rows.arrow", "spec.json"):
        bad = {**manifest["files"], name: ["link:/etc/passwd", 0]}
        run.manifest.write_text(json.dumps({**manifest, "files": bad}))
        world.head_run(1).manifest.unlink(missing_ok=True)
        with pytest.raises(BadHarvest, match="is a link where a file belongs"):
            world.carrier.fetch(1, 1)


def test_what_the_seal_does_not_name_goes(world: World) -> None:
    """An older checkpoint that the mirror brought and the program has dropped since."""
    sealed(world)
    old = world.head_run(1).checkpoints / "1"
    old.mkdir()
    (old / "manifest.json").write_text("{}")
    world.carrier.fetch(1, 1)
    assert not (old / "manifest.json").exists()
    assert verify_manifest(world.head_run(1)) == []


def test_a_harvest_that_was_damaged_on_the_head_is_fetched_again(world: World) -> None:
    sealed(world)
    world.carrier.fetch(1, 1)
    (world.head_run(1).artifacts / "model.bin").write_bytes(b"bit rot")
    world.carrier.fetch(1, 1)
    same(world)


# The head's own disk.


@pytest.mark.parametrize("where", ["block", "rename"])
def test_the_heads_disk_is_full(world: World, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    frozen = world.frozen(1)
    world.sealed(frozen, {"artifacts/big.bin": os.urandom(3 << 20), "artifacts/small.txt": b"x"})
    real = os.pwrite
    left = [1 << 20]

    def pwrite(fd: int, data: Any, offset: int) -> int:
        take = min(len(data), max(0, left[0]))
        left[0] -= take
        if not take:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:take], offset)

    def replace(self: Path, target: Any) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if where == "block":
            patched.setattr(pull_module.os, "pwrite", pwrite)
        else:
            patched.setattr(Path, "replace", replace)
        with pytest.raises(NoRoom, match="the head's disk is full"):
            world.carrier.fetch(1, 1)
    run = world.head_run(1)
    assert not run.manifest.exists()
    assert not (run.artifacts / "big.bin").exists()
    if where == "block":
        assert [p for p in (run.path / ".partial").iterdir() if p.stat().st_size > 100] == [], "room is given back"
    world.carrier.fetch(1, 1)
    same_big = (run.artifacts / "big.bin").read_bytes() == (world.lane_run(1).artifacts / "big.bin").read_bytes()
    assert same_big
    assert verify_manifest(run) == []
