"""The int8 file of the postfilter and the older form: rounding, bytes, and everything that must be refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kernels.postfilter import Weights, apply, seedform
from kernels.postfilter.quantised import (
    CHECKSUM,
    ENTRY,
    HEADER,
    FileRefused,
    Quantised,
    decode,
    encode,
    quantise,
    read,
    rounded,
    scale,
    write,
)
from tests.kernels.test_postfilter import picture, trained


def same(a: Quantised, b: Quantised) -> bool:
    values = all(np.array_equal(a.values[k], b.values[k]) and a.values[k].dtype == np.int8 for k in b.values)
    return values and dict(a.scales) == dict(b.scales)


# --- rounding ---------------------------------------------------------------------------------------------------

TIES = np.array([0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, 126.5, 127, -127, 0.49999997], dtype=np.float32)


def test_ties_go_to_the_even_number() -> None:
    assert scale(TIES) == 1
    assert rounded(TIES, scale(TIES)).tolist() == [0, 2, 2, 4, 0, -2, -2, 126, 127, -127, 0]


@pytest.mark.parametrize("mutant", [lambda x: np.trunc(x + np.copysign(0.5, x)), lambda x: np.floor(x + 0.5), np.trunc])
def test_other_ties_are_caught(mutant: Any) -> None:
    assert rounded(TIES, np.float32(1)).tolist() != mutant(TIES).astype(np.int8).tolist()


def test_torch_rounds_the_same() -> None:
    """A training's forward pass meets exactly what is shipped: the same float32 division, the same ties."""
    for name, tensor in trained(24).tensors().items():
        s = scale(tensor)
        theirs = torch.round(torch.from_numpy(tensor) / torch.tensor(s)).clamp(-127, 127).to(torch.int8)
        np.testing.assert_array_equal(rounded(tensor, s), theirs.numpy(), err_msg=name)


def test_scale_reaches_the_largest_weight_and_zeros_have_one() -> None:
    assert scale(np.zeros(3, dtype=np.float32)) == 1
    assert scale(np.array([-254, 3], dtype=np.float32)) == 2
    tiny = np.array([1e-44, 0], dtype=np.float32)  # max/127 is no float32 number any more
    assert (scale(tiny), rounded(tiny, scale(tiny)).tolist()) == (1, [0, 0])
    tiny = np.array([2.5e-43, -2.5e-43], dtype=np.float32)  # and here it rounds by more than a tenth
    assert rounded(tiny, scale(tiny)).tolist() == [127, -127]
    first = quantise(Weights.initial(5, 0))
    assert first.scales["w3"] == 1
    assert not first.values["w3"].any()
    assert max(abs(int(q)) for q in first.values["w1"].ravel()) == 127


def test_what_is_shipped_is_within_half_a_step() -> None:
    weights = trained(16)
    shipped = quantise(weights)
    for name, tensor in shipped.weights().tensors().items():
        assert np.abs(tensor - weights.tensors()[name]).max() <= 0.5001 * shipped.scales[name]
    frames = picture()[:, :, :40, :50]
    np.testing.assert_array_equal(apply(frames, quantise(Weights.initial(16, 0)).weights(), backend="numba"), frames)


# --- the file ---------------------------------------------------------------------------------------------------


def test_equal_weights_give_equal_bytes_whatever_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "long500_qat_ema_alpha20_h16"
    folder.mkdir()
    paths = [tmp_path / "a", folder / ("long1000_qat_ema_alpha30_h16" * 7), tmp_path / "ä b.int8"]
    for path in paths:
        write(path, quantise(trained(16)))
    assert len({path.read_bytes() for path in paths}) == 1
    signed = Weights.of(
        {name: np.where(t == 0, np.float32(-0.0), t) for name, t in Weights.initial(3, 0).tensors().items()}
    )
    assert encode(quantise(signed)) == encode(quantise(Weights.initial(3, 0)))
    assert encode(quantise(trained(16))) != encode(quantise(trained(16, seed=1)))


@pytest.mark.parametrize("h", [1, 16, 64])
def test_a_file_comes_back_whole(tmp_path: Path, h: int) -> None:
    shipped = quantise(trained(h))
    write(tmp_path / "w", shipped)
    assert (tmp_path / "w").stat().st_size == 9 * h * h + 56 * h + 3 + 144
    back = read(tmp_path / "w")
    assert same(back, shipped)
    assert back.weights() == shipped.weights()
    assert encode(back) == (tmp_path / "w").read_bytes()


def test_the_format_is_the_one_that_was_written_down() -> None:
    """Laid out by hand: a change of the format must change its version."""
    weights = Weights.zeros(1)
    weights.b3[:] = (2, -4, 254)
    data = encode(quantise(weights))
    expected = b"\x89PF8\r\n\x1a\n" + bytes([1, 0, 1, 0, 6, 0, 0, 0])
    for name, sides in (
        (b"w1", (1, 3, 3, 3)),
        (b"b1", (1,)),
        (b"w2", (1, 1, 3, 3)),
        (b"b2", (1,)),
        (b"w3", (3, 1, 3, 3)),
        (b"b3", (3,)),
    ):
        expected += name + bytes([len(sides), 0])
        expected += b"".join(bytes([side, 0]) for side in sides) + bytes(8 - 2 * len(sides))
    expected += bytes(27 + 1 + 9 + 1 + 27) + bytes([1, 254, 127])
    expected += np.array([1, 1, 1, 1, 1, 2], dtype="<f4").tobytes()
    assert data == expected + hashlib.sha256(expected).digest()


def test_every_changed_byte_is_refused() -> None:
    data = encode(quantise(trained(2)))
    assert same(decode(data), quantise(trained(2)))
    for k in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[k] ^= change
            with pytest.raises(FileRefused):
                decode(bytes(changed))


def test_every_cut_is_refused() -> None:
    data = encode(quantise(trained(2)))
    for length in range(len(data)):
        with pytest.raises(FileRefused):
            decode(data[:length])
    with pytest.raises(FileRefused, match="has bytes behind its end"):
        decode(data + b"\0")


def test_refusals_say_what_and_where(tmp_path: Path) -> None:
    data = encode(quantise(trained(4)))
    flipped = bytearray(data)
    flipped[200] ^= 1
    for content, says in (
        (b"", "is no file of quantised postfilter weights"),
        (b"PK\x03\x04" + data, "is no file of quantised postfilter weights"),
        (data[:-1], "was cut short: 514 bytes where weights of 4 channels have 515; copy it again"),
        (bytes(flipped), "was changed: its bytes do not match its checksum; copy it again"),
        (data.replace(b"\n\x01\0", b"\n\x02\0", 1), "has format version 2, and this program reads version 1"),
    ):
        path = tmp_path / "best.int8"
        path.write_bytes(content)
        with pytest.raises(FileRefused, match=f"{path} {says}"):
            read(path)


def signed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def test_a_file_signed_by_another_writer_is_read_with_care() -> None:
    body = encode(quantise(trained(2)))[:-CHECKSUM]
    assert same(decode(signed(body)), quantise(trained(2)))
    start = HEADER.size + 6 * ENTRY.size
    table = bytearray(body)
    table[HEADER.size : HEADER.size + 2] = b"b1"
    spare = bytearray(body)
    spare[14] = 1  # else equal weights would have files that differ
    low = bytearray(body)
    low[start] = 0x80
    for number in (np.nan, 0, -1, np.inf):
        scales = bytearray(body)
        scales[-4:] = np.float32(number).tobytes()
        with pytest.raises(FileRefused, match="a scale that is not above 0"):
            decode(signed(bytes(scales)))
    for wrong, says in ((table, "a table of tensors"), (spare, "a table of tensors"), (low, "an int8 value of -128")):
        with pytest.raises(FileRefused, match=says):
            decode(signed(bytes(wrong)))


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w"
    write(path, quantise(trained(2)))
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    seen = []
    real = os.replace

    def watched(draft: str, target: Path) -> None:
        seen.append((Path(draft).read_bytes(), path.read_bytes()))
        real(draft, target)

    monkeypatch.setattr(os, "replace", watched)
    write(path, quantise(trained(2)))
    assert seen == [(before, before)]
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        write(path, quantise(trained(3)))
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    assert path.read_bytes() == before


# --- the older form ---------------------------------------------------------------------------------------------


def older(h: int = 4, layers: tuple[str, str, str] = ("conv1", "conv2", "conv3"), *, per_channel: bool = False) -> Any:
    """Such a dict and the weights it stands for."""
    rng, found, weights = np.random.default_rng(h), {}, {}
    for k, layer in enumerate(layers, 1):
        shape = Weights.zeros(h).tensors()[f"w{k}"].shape
        q = rng.integers(-127, 128, shape).astype(np.int8)
        s = rng.uniform(0.001, 0.01, shape[0] if per_channel else ()).astype(np.float32)
        b = rng.normal(size=shape[0]).astype(np.float32)
        found[f"{layer}.weight.q"], found[f"{layer}.weight.s"] = torch.from_numpy(q), torch.tensor(s)
        found[f"{layer}.bias"] = torch.from_numpy(b)
        weights[f"w{k}"] = q.astype(np.float32) * (s.reshape(-1, 1, 1, 1) if per_channel else s)
        weights[f"b{k}"] = b
    found["__meta__"] = {"h": h, "name": "long500_qat_ema_alpha20_h4", "epochs": 500}
    return found, Weights.of(weights)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    "layers",
    [
        ("conv1", "conv2", "conv3"),
        ("0", "2", "4"),
        ("net.0", "net.2", "net.4"),
        ("module.conv1", "module.conv2", "module.conv3"),
    ],
)
def test_the_older_form_is_read(tmp_path: Path, layers: Any, per_channel: bool) -> None:
    found, weights = older(layers=layers, per_channel=per_channel)
    torch.save(found, tmp_path / "best.pt")
    assert seedform.read(tmp_path / "best.pt") == weights


def test_other_names_are_told() -> None:
    found, weights = older(layers=("head", "body", "tail"))
    assert seedform.from_dict(found, layers=("head", "body", "tail")) == weights
    with pytest.raises(FileRefused, match=r"lacks conv1\.weight\.q"):
        seedform.from_dict(found)


def test_plain_numbers_and_other_floats_are_taken() -> None:
    found, weights = older()
    found["conv2.weight.s"] = float(found["conv2.weight.s"])
    found["conv1.weight.s"] = found["conv1.weight.s"].reshape(1).double()
    found["conv3.bias"] = torch.nn.Parameter(found["conv3.bias"].double())
    del found["__meta__"]
    assert seedform.from_dict(found) == weights


def changed(**changes: Any) -> Any:
    found, _ = older()
    for key, value in changes.items():
        key = key.replace("__", ".") if key != "__meta__" else key
        if value is None:
            del found[key]
        else:
            found[key] = value
    return found


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (changed(conv2__weight__s=None, conv3__bias=None), "best.pt lacks conv2.weight.s, conv3.bias"),
        (changed(conv1__bias=None), "best.pt lacks conv1.bias"),
        (
            changed(conv4__bias=torch.zeros(3), ema=torch.zeros(1)),
            "best.pt holds conv4.bias, ema, which this operator has not",
        ),
        (
            changed(conv2__weight__q=torch.zeros(4, 3, 3, 3, dtype=torch.int8), conv3__bias=torch.zeros(4)),
            r"conv2.weight.q is \(4, 3, 3, 3\) and must be \(4, 4, 3, 3\); conv3.bias is \(4,\) and must be \(3,\)",
        ),
        (changed(conv2__weight__s=torch.ones(3)), r"conv2.weight.s is \(3,\) and must be one number or \(4,\)"),
        (changed(conv2__weight__q=torch.zeros(4, 4, 3, 3)), "conv2.weight.q of .* is torch.float32, where int8"),
        (changed(conv2__bias=torch.zeros(4, dtype=torch.int8)), "conv2.bias of .* is torch.int8, where floating point"),
        (changed(conv2__bias=[0.0] * 4), "conv2.bias of .* is a list, where a tensor is expected"),
        (changed(conv1__bias=torch.full((4,), torch.nan)), r"b1\[0\] is not finite"),
        (changed(__meta__={"h": 16}), "__meta__ of .* tells h 16, and conv1.bias has 4 channels"),
        ([1, 2], "holds a list, where a dict of tensors is expected"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, found: Any, says: str) -> None:
    torch.save(found, tmp_path / "best.pt")
    with pytest.raises(ValueError, match=says):
        seedform.read(tmp_path / "best.pt")


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_such_a_file_can_run(tmp_path: Path) -> None:
    torch.save({**older()[0], "__meta__": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(FileRefused, match="is no whole file of plain tensors saved by torch"):
            seedform.read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_cut_or_empty_file_is_refused(tmp_path: Path) -> None:
    torch.save(older()[0], tmp_path / "best.pt")
    data = (tmp_path / "best.pt").read_bytes()
    for content in (b"", data[:100], data[: len(data) // 2], data[:-30], b"no file of torch at all"):
        (tmp_path / "cut.pt").write_bytes(content)
        with pytest.raises(FileRefused, match=r"cut\.pt is no whole file"):
            seedform.read(tmp_path / "cut.pt")
    with pytest.raises(FileNotFoundError):
        seedform.read(tmp_path / "none.pt")
