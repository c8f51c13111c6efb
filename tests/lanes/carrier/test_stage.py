"""To the lane: everything arrives as it was, nothing twice, whatever the link does."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from core.digests import Digests
from lanes.agent import packing, setup
from lanes.agent.trees import remove_tree
from lanes.carrier import stage as stage_module
from lanes.carrier.errors import NotSendable
from lanes.carrier.source import Source, Want
from lanes.transport import LinkDown
from tests.lanes.carrier.support import World, contents, entry, sha


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "CHUNK", 300)


def tree(world: World) -> Path:
    world.file("set/a.bin", os.urandom(1000))
    world.file("set/deep/er/b.bin", os.urandom(700))
    world.file("set/deep/empty", b"")
    world.file("set/run.sh", b"#!/bin/sh\n").chmod(0o755)
    folder = world.folder / "data" / "set"
    (folder / "link").symlink_to("deep/er")
    (folder / "zz").symlink_to("a.bin")  # a link to a file counts as the file
    return folder


def wants(world: World, frozen: dict[str, Any]) -> None:
    """Nothing is really started: only what is sent counts here."""
    world.agent.start = lambda spec, run: {"ok": True, "spec": spec}  # type: ignore[method-assign]


def order(world: World, job: int = 1) -> dict[str, Any]:
    folder = tree(world)
    one = world.file("one.bin", os.urandom(2500))
    code = world.code({"main.py": "print(1)\n", "lib/x.py": "y = 2\n" * 50, "go.sh": "#!/bin/sh\n", "empty": ""})
    frozen = world.frozen(
        job,
        inputs=[entry(folder, "set"), entry(one, "one"), entry(one, "again")],
        code={"digest": "c", "path": code, "subdir": ""},
    )
    wants(world, frozen)
    return world.order(frozen)


def stream_size(world: World, frozen: dict[str, Any]) -> int:
    from lanes.carrier.carrier import _wants

    with Digests(None) as digests:
        unique = {(w.kind, w.name): w for w in _wants(frozen)}
        return sum(Source(w, digests).size for w in unique.values())


def check_arrived(world: World, frozen: dict[str, Any], spec: dict[str, Any]) -> None:
    assert contents(Path(spec["code"]["path"])) == contents(Path(frozen["code"]["path"]))
    assert contents(Path(spec["kind_path"])) == contents(Path(frozen["kind_path"]))
    for there, here in zip(spec["inputs"], frozen["inputs"], strict=True):
        assert str(world.base) in there["path"]
        assert setup.hash_path(Path(there["path"])) == here["sha256"]
    assert os.access(Path(spec["code"]["path"]) / "go.sh", os.X_OK)
    assert not os.access(Path(spec["code"]["path"]) / "main.py", os.X_OK)


def test_everything_arrives_and_is_sent_once(world: World, small_chunks: None) -> None:
    asked = order(world)
    frozen = asked["frozen"]
    told: list[tuple[int, int, str]] = []
    answer = world.carrier.begin(asked, progress=lambda *said: told.append(said))
    check_arrived(world, frozen, answer["spec"])
    size = stream_size(world, frozen)
    assert world.wire.up == size
    assert told[-1][:2] == (size, size)
    assert [t[0] for t in told] == sorted(t[0] for t in told)
    assert world.carrier.begin(asked)["ok"]
    assert world.wire.up == size, "what is there is not sent again"
    assert list((world.base / "store" / "partial").glob("*-*")) == []


def test_what_is_kept_is_read_only(world: World) -> None:
    spec = world.carrier.begin(order(world))["spec"]
    for item in spec["inputs"]:
        path = Path(item["path"])
        for file in [path] if path.is_file() else [path / n for n in contents(path)]:
            assert file.is_symlink() or not file.stat().st_mode & 0o222
    assert not Path(spec["inputs"][0]["path"]).stat().st_mode & 0o222


@pytest.mark.parametrize("how", ["before", "after"])
def test_the_link_cut_at_every_call(world: World, small_chunks: None, how: str) -> None:
    """For each call of the transfer: the link goes there, and the transfer is begun again until it is done."""
    asked = order(world)
    frozen = asked["frozen"]
    world.carrier.begin(asked)
    calls = len(world.wire.calls)
    size = stream_size(world, frozen)
    assert calls > 20
    for at in range(calls):
        remove_tree(world.base / "store")
        world.new_store()
        world.wire.calls, world.wire.up = [], 0
        world.wire.cut = lambda n, method, at=at: how if n == at else ""
        cuts = 0
        while True:
            try:
                spec = world.carrier.begin(asked)["spec"]
                break
            except LinkDown:
                cuts += 1
                if at % 3 == 0:
                    world.new_store()  # the far end's process went with the link
                if at % 3 == 1:
                    world.new_carrier()  # or the head's
        assert cuts == 1
        check_arrived(world, frozen, spec)
        assert world.wire.up == size, f"bytes were sent twice after a cut {how} call {at} ({world.wire.calls[at][0]})"


def test_a_large_file_goes_on_at_its_offset(world: World) -> None:
    size = 20 << 20
    big = world.file("big.bin", os.urandom(1 << 20) * 20)
    frozen = world.frozen(1, inputs=[entry(big)])
    wants(world, frozen)
    world.wire.cut = lambda n, m: "after" if len(world.wire.named("put_chunk")) == 12 and m == "put_chunk" else ""
    with pytest.raises(LinkDown):
        world.carrier.begin(world.order(frozen))
    world.wire.cut = lambda n, m: ""
    there = world.wire.up
    world.new_store()
    world.new_carrier()
    spec = world.carrier.begin(world.order(frozen))["spec"]
    assert Path(spec["inputs"][0]["path"]).read_bytes() == big.read_bytes()
    assert (10 << 20) < there < size
    assert world.wire.up == size + stream_size(world, world.frozen(2))


def test_what_an_earlier_try_left_is_not_believed(world: World, small_chunks: None) -> None:
    """A beginning that is not ours (the machine died, a file was another one) is hashed, and sent again."""
    data = os.urandom(3000)
    one = world.file("one.bin", data)
    frozen = world.frozen(1, inputs=[entry(one)])
    wants(world, frozen)
    world.wire.cut = lambda n, m: "after" if len(world.wire.named("put_chunk")) == 8 and m == "put_chunk" else ""
    with pytest.raises(LinkDown):
        world.carrier.begin(world.order(frozen))
    world.wire.cut = lambda n, m: ""
    world.new_store()
    (partial,) = (world.base / "store" / "partial").glob("inputs-*/file")
    left = bytearray(partial.read_bytes())
    assert 300 <= len(left) < 3000
    left[100] ^= 1
    partial.write_bytes(bytes(left))
    before = world.wire.up
    spec = world.carrier.begin(world.order(frozen))["spec"]
    assert Path(spec["inputs"][0]["path"]).read_bytes() == data
    assert world.wire.up - before == 3000, "it was found before anything was added to it"


def test_files_of_a_folder_that_were_damaged_meanwhile_are_sent_again(world: World, small_chunks: None) -> None:
    for name in "abc":
        world.file(f"set/{name}", os.urandom(900))
    folder = world.folder / "data" / "set"
    frozen = world.frozen(1, inputs=[entry(folder, "set")])
    wants(world, frozen)
    world.wire.cut = lambda n, m: "after" if len(world.wire.named("put_chunk")) == 9 and m == "put_chunk" else ""
    with pytest.raises(LinkDown):
        world.carrier.begin(world.order(frozen))
    world.wire.cut = lambda n, m: ""
    world.new_store()
    (partial,) = (world.base / "store" / "partial").glob("inputs-*/files")
    assert (partial / "a").stat().st_size == (partial / "b").stat().st_size == 900
    (partial / "a").write_bytes(bytes(900))
    spec = world.carrier.begin(world.order(frozen))["spec"]
    assert contents(Path(spec["inputs"][0]["path"])) == contents(folder)
    assert world.wire.up < stream_size(world, frozen) + 1000 + 600, "only the damaged one was sent again"


def test_a_flipped_byte_is_refused_and_sent_again(world: World, small_chunks: None) -> None:
    asked = order(world)
    flips = []

    def damage(method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if method == "put_chunk" and len(world.wire.named("put_chunk")) in (3, 9):
            flips.append(method)
            data = bytearray(args[3])
            data[len(data) // 2] ^= 4
            return (*args[:3], bytes(data), *args[4:])
        return args

    world.wire.damage = damage
    spec = world.carrier.begin(asked)["spec"]
    check_arrived(world, asked["frozen"], spec)
    assert len(flips) == 2
    assert len([s for s in world.said if "damaged under way" in s]) == 2


def test_a_file_that_is_damaged_with_its_checksum_is_refused_by_its_digest(world: World, small_chunks: None) -> None:
    """The digest of the whole is what counts, not that of the pieces."""
    import binascii

    one = world.file("one.bin", os.urandom(3000))
    frozen = world.frozen(1, inputs=[entry(one)])
    wants(world, frozen)
    flips = []

    def damage(method: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if method == "put_chunk" and args[0] == "inputs" and len(flips) < 1:
            flips.append(method)
            data = bytes([args[3][0] ^ 1]) + args[3][1:]
            return (*args[:3], data, binascii.crc32(data))
        return args

    world.wire.damage = damage
    spec = world.carrier.begin(world.order(frozen))["spec"]
    assert Path(spec["inputs"][0]["path"]).read_bytes() == one.read_bytes()
    assert any("damaged" in s for s in world.said)


def test_a_link_that_always_damages_is_given_up(world: World, small_chunks: None) -> None:
    world.wire.damage = lambda method, args: (
        (*args[:3], bytes([args[3][0] ^ 1]) + args[3][1:], args[4]) if method == "put_chunk" else args
    )
    answer = world.carrier.begin(order(world))
    assert not answer["ok"]
    assert "3 times" in answer["reason"]


def test_an_input_that_changed_since_is_stale(world: World) -> None:
    one = world.file("one.bin", b"then")
    frozen = world.frozen(1, inputs=[entry(one)])
    wants(world, frozen)
    one.write_bytes(b"now!!")
    answer = world.carrier.begin(world.order(frozen))
    assert (answer["ok"], answer["cause"]) == (False, "stale-input")
    assert "'data'" in answer["reason"]
    assert str(one) in answer["reason"]
    assert "submit again" in answer["reason"]
    one.unlink()
    assert "No such file" in world.carrier.begin(world.order(frozen))["reason"]
    one.write_bytes(b"then")  # and it is sent when it is as it was
    assert world.carrier.begin(world.order(frozen))["ok"]
    one.unlink()
    assert world.carrier.begin(world.order(frozen))["ok"], "what the lane has is not asked of the head"


def test_a_damaged_snapshot_is_not_sent_and_bytecode_does_no_harm(world: World) -> None:
    frozen = world.frozen(1)
    wants(world, frozen)
    place = Path(frozen["kind_path"])
    (place / "__pycache__").mkdir()
    (place / "__pycache__" / "kind.cpython-311.pyc").write_bytes(b"x")
    spec = world.carrier.begin(world.order(frozen))["spec"]
    assert list(contents(Path(spec["kind_path"]))) == ["kind.py"]
    other = world.frozen(2, kind_path=world.code({"kind.py": "other\n"}))
    (Path(other["kind_path"]) / "kind.py").write_text("tampered\n")
    answer = world.carrier.begin(world.order(other))
    assert not answer["ok"]
    assert "damaged" in answer["reason"]


def test_cancelled_between_two_chunks(world: World, small_chunks: None) -> None:
    asked = order(world)
    cancelled = threading.Event()

    def progress(done: int, total: int, what: str) -> None:
        if done > total // 2:
            cancelled.set()

    answer = world.carrier.begin(asked, progress, cancelled)
    assert (answer["ok"], answer["cause"]) == (False, "cancelled")
    half = world.wire.up
    assert half < stream_size(world, asked["frozen"])
    assert world.wire.named("start") == []
    assert world.carrier.begin(asked)["ok"]
    assert world.wire.up == stream_size(world, asked["frozen"]), "what was there is not sent again"


def test_two_attempts_send_the_same_at_once(world: World, small_chunks: None) -> None:
    """By two carriers, which know nothing of one another: each byte may be written by either, and all is right."""
    asked = order(world)
    carriers = [world.carrier, world.new_carrier()]
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda c=c: answers.append(c.begin(asked))) for c in carriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [a["ok"] for a in answers] == [True, True]
    check_arrived(world, asked["frozen"], answers[0]["spec"])


def test_two_processes_at_the_far_end_feed_the_same_thing(world: World, small_chunks: None) -> None:
    """An older process that was not ended yet: it notices that the disk is further than it remembers."""
    from lanes.agent.store import Store

    asked = order(world)
    stores = [world.store, Store(world.base)]
    world.wire.parts = (world.agent,)

    class Both:
        def __getattr__(self, name: str) -> Any:
            if not hasattr(Store, name):
                raise AttributeError(name)
            return getattr(stores[len(world.wire.calls) // 3 % 2], name)

    world.wire.parts = (Both(), world.agent)
    answer = world.carrier.begin(asked)
    assert answer["ok"], answer
    check_arrived(world, asked["frozen"], answer["spec"])
    assert {s.disk()["kept"]["inputs"][0] for s in stores} == {2}


def test_the_lanes_disk_is_full(world: World, small_chunks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from lanes.agent import upload

    real, left = os.pwrite, [4000]

    def pwrite(fd: int, data: Any, offset: int) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    asked = order(world)
    monkeypatch.setattr(upload.os, "pwrite", pwrite)
    answer = world.carrier.begin(asked)
    assert (answer["ok"], answer["cause"]) == (False, "disk-full")
    assert "the lane's disk is full" in answer["reason"]
    left[0] = 1 << 30
    check_arrived(world, asked["frozen"], world.carrier.begin(asked)["spec"])


def test_no_room_is_said_before_anything_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    asked = order(world)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 64 << 20))
    answer = world.carrier.begin(asked)
    assert answer["cause"] == "disk-full"
    assert "another `root`" in answer["reason"]
    assert world.wire.up == 0


def test_room_is_made_by_what_no_attempt_uses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    old = world.file("old.bin", os.urandom(1 << 20))
    frozen = world.frozen(1, inputs=[entry(old)])
    wants(world, frozen)
    assert world.carrier.begin(world.order(frozen))["ok"]
    sent = [p.name for p in (world.base / "store" / "inputs").iterdir()]
    world.long_ago()

    def free(path: Any) -> Any:
        gone = not (world.base / "store" / "inputs" / sent[0]).exists()
        return usage(1, 1, (64 << 20) + (1 << 20) + 4096 if gone else 64 << 20)

    monkeypatch.setattr(shutil, "disk_usage", free)
    new = world.file("new.bin", os.urandom(1 << 20))
    answer = world.carrier.begin(world.order(world.frozen(2, inputs=[entry(new)])))
    assert answer["ok"], answer
    assert any("were removed" in s for s in world.said)


def test_a_large_upload_is_announced(world: World) -> None:
    asked = order(world)
    world.new_carrier(large=1000)
    assert world.carrier.begin(asked)["ok"]
    (line,) = [s for s in world.said if "are to be sent" in s]
    assert "lane mini" in line
    assert "data/set" in line
    world.said.clear()
    assert world.carrier.begin(asked)["ok"]
    assert world.said == []


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "a/./b", "..", "x\0y", "a/" + "n" * 5000]
)
def test_hostile_names_in_a_plan(world: World, name: str) -> None:
    rows = [packing.Entry(name, sha(b"x"), 1, False)]
    with pytest.raises(ValueError, match="cannot be the name"):
        packing.check(rows)
    stream = packing.encode(rows) + b"x"
    assert "cannot be the name" in refusal(world, rows, stream)
    assert not (world.base / "store" / "x").exists()


@pytest.mark.parametrize("link", ["/etc", "..", "../..", "a/../../..", "x/../y"])
def test_hostile_links_in_a_plan(world: World, link: str) -> None:
    rows = [packing.Entry("l", f"link:{link}", 0, False)]
    assert "leads out" in refusal(world, rows, packing.encode(rows))


def test_nothing_lies_below_a_link_or_a_file(world: World) -> None:
    for first in (packing.Entry("l", "link:d", 0, False), packing.Entry("l", sha(b"x"), 1, False)):
        rows = [first, packing.Entry("l/x", sha(b"x"), 1, False)]
        assert "not a folder" in refusal(world, rows, packing.encode(rows) + b"x" * 2)
    rows = [packing.Entry("d/x", sha(b"x"), 1, False), packing.Entry("k/l", "link:../d", 0, False)]
    assert refusal(world, rows, packing.encode(rows) + b"x") == "", "a good one is taken"


@pytest.mark.parametrize("name", ["../code/x", "x", "A" * 64, "0" * 63, "0" * 64 + "/x", 7])
def test_hostile_names_in_the_store(world: World, name: Any) -> None:
    from lanes.agent.upload import StoreRefused

    for call in (
        lambda: world.store.have("inputs", [name]),
        lambda: world.store.begin("inputs", name, 1, "0" * 64, False),
        lambda: world.store.drop("inputs", name),
        lambda: world.store.put_chunk("../x", name, 0, b"", 0) and world.store.finish("../x", name),
    ):
        with pytest.raises(StoreRefused):
            call()


def test_a_folder_is_refused_under_another_name(world: World) -> None:
    rows = [packing.Entry("a", sha(b"x"), 1, False)]
    stream = packing.encode(rows) + b"x"
    assert "another folder" in refusal(world, rows, stream, digest="0" * 64)


def refusal(world: World, rows: list[packing.Entry], stream: bytes, digest: str = "") -> str:
    """Send a stream as a hostile or broken head would; returns what the lane says of it."""
    import binascii

    from lanes.agent.upload import StoreRefused

    digest = digest or packing.tree_digest("inputs", rows)
    try:
        assert world.store.begin("inputs", digest, len(stream), digest, True)["state"] == "ready"
        state = world.store.put_chunk("inputs", digest, 0, stream, binascii.crc32(stream))
        assert state["offset"] == len(stream)
        assert world.store.finish("inputs", digest)["state"] == "there"
    except StoreRefused as error:
        assert not (world.base / "store" / "inputs" / digest).exists()
        assert not (world.base / "store" / "partial" / f"inputs-{digest}").exists()
        return str(error)
    return ""


def test_an_input_with_a_link_that_leads_outside_is_refused_on_the_head(world: World) -> None:
    world.file("set/a", b"a")
    outside = world.folder / "outside"
    outside.mkdir()
    (world.folder / "data" / "set" / "l").symlink_to(outside)
    frozen = world.frozen(1, inputs=[entry(world.folder / "data" / "set", "set")])
    answer = world.carrier.begin(world.order(frozen))
    assert not answer["ok"]
    assert "leads out of its folder" in answer["reason"]
    assert "'set'" in answer["reason"]


def test_kept_things_can_be_verified(world: World) -> None:
    spec = world.carrier.begin(order(world))["spec"]
    for kind, path in (("code", spec["code"]["path"]), *(("inputs", i["path"]) for i in spec["inputs"])):
        assert world.store.verify(kind, Path(path).name) == {"state": "done", "equal": True, "why": ""}
    file = Path(spec["code"]["path"]) / "main.py"
    file.chmod(0o644)
    file.write_text("print(2)\n")  # as long as before
    found = world.store.verify("code", file.parent.name)
    assert not found["equal"]
    assert str(file) in found["why"]


def test_a_thing_that_lost_a_file_is_not_there(world: World) -> None:
    asked = order(world)
    spec = world.carrier.begin(asked)["spec"]
    (Path(spec["code"]["path"]) / "main.py").unlink()
    check_arrived(world, asked["frozen"], world.carrier.begin(asked)["spec"])
    torn = Path(spec["inputs"][1]["path"])  # as a machine leaves it that died before it was on disk
    torn.chmod(0o644)
    os.truncate(torn, 10)
    check_arrived(world, asked["frozen"], world.carrier.begin(asked)["spec"])


def test_drop_and_trim_spare_what_a_live_attempt_uses(world: World) -> None:
    asked = order(world)
    del world.agent.start  # type: ignore[method-assign]
    spec = world.store  # the real start: it writes the spec, whatever becomes of the attempt
    answer = world.carrier.begin(asked)
    assert answer["ok"], answer
    run = world.lane_run(1)
    used = [Path(run.spec.parent / "spec.json")]
    assert used[0].exists()
    names = [("code", p.name) for p in (world.base / "store" / "code").iterdir()]
    for kind, name in names:
        assert spec.drop(kind, name)["ok"] is False
    assert spec.trim(1 << 40) == {"freed": 0, "dropped": []}, "it was just asked for"
    world.long_ago()
    assert spec.trim(1 << 40) == {"freed": 0, "dropped": []}, "and it is used"
    world.agent.signal(1, 1, "revoke")
    from tests.support import wait_for

    wait_for(lambda: world.agent.poll({}, 0)["reports"][0]["clear"], "the attempt to be gone")
    assert world.carrier.forget(1, 1)["ok"]
    kept = world.carrier.ensure_code(Path(asked["frozen"]["kind_path"]).name)
    assert len(spec.trim(1 << 40)["dropped"]) == 3, "not what was just asked for"
    assert Path(kept).exists()
    world.long_ago()
    assert len(spec.trim(1 << 40)["dropped"]) == 1
    assert spec.disk()["kept"] == {"code": [0, 0], "inputs": [0, 0], "checkpoints": [0, 0]}


def test_trim_takes_what_was_used_longest_ago_first(world: World) -> None:
    paths = []
    for number in range(3):
        file = world.file(f"f{number}", os.urandom(1000))
        with Digests(None) as digests:
            want = Want("inputs", digests.file(file).sha256, file, "x", tree=False)
        paths.append(Path(world.carrier.send_file(str(file))))
        os.utime(world.base / "store" / "used" / f"inputs-{want.name}", (number, number))
    assert world.store.trim(1500, [["inputs", paths[0].name]])["dropped"] == [
        ["inputs", paths[1].name], ["inputs", paths[2].name]
    ]  # fmt: skip
    assert [p.exists() for p in paths] == [True, False, False]


def test_an_unreadable_file_is_named(world: World) -> None:
    with pytest.raises(NotSendable, match="cannot be read"):
        world.carrier.send_file(str(world.folder / "nothing"))


def test_single_things_can_be_had_on_the_lane(world: World) -> None:
    code = Path(world.code({"a.py": "1\n"}))
    assert contents(Path(world.carrier.ensure_code(code.name))) == contents(code)
    assert world.carrier.send_code([code.name]) == {code.name: world.carrier.ensure_code(code.name)}
    script = world.file("run.sh", b"#!/bin/sh\n")
    item = entry(script)
    plain = Path(world.carrier.ensure_input(item))
    script.chmod(0o755)
    executable = Path(world.carrier.ensure_input(item))
    assert plain.read_bytes() == executable.read_bytes() == b"#!/bin/sh\n"
    assert (os.access(plain, os.X_OK), os.access(executable, os.X_OK)) == (False, True)
    script.write_bytes(b"changed")
    with pytest.raises(NotSendable, match="submit again"):
        world.carrier.ensure_input({**item, "sha256": sha(b"another")})
