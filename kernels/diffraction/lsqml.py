"""LSQML: an iterative least-squares engine for far-field ptychography (Odstrcil, Menzel, Guizar-Sicairos 2018).

With a probe P, patches O_i of the object and measured amplitudes √I_i, for every minibatch of positions i:

    ψ_i = P_i·O_i,  Ψ_i = Fψ_i,  χ_i = F⁻¹(√I_i·Ψ_i/|Ψ_i|) - ψ_i
    dP  = mean χ_i·conj(O_i)
    dO  = Σ χ_i·conj(P_i) / sqrt(W² + (0.1·max W)²),  W = Σ|P|² over all positions
    the two steps of a position: min ‖χ_i - a_O·dO·P_i - a_P·dP·O_i‖², diagonal + 0.1·its mean over the minibatch,
    clipped at 0, times 0.9; their means over the minibatch are what O and P move by.

F is unitary (FFT2/N), so that Σ|Ψ|² = Σ|ψ|². P_i is P moved by the fraction of a pixel that the position has: a
product with phases in Fourier space, which are separable, so that two vectors of N for each position are all that is
kept. A set of whole-pixel positions skips this and its two transforms. In the 2×2 system dP stands unmoved: half a
pixel of a direction does not matter to the length of a step. W is made anew at the start of each epoch.

A factor may go from P to O unseen, c·O and P/c give the same waves, and each of the steps above is the same but for
it. With few photons it grows from epoch to epoch (by 1.7 at 0.06 of them a pixel) until it overflows: so after each
epoch a probe that moves is given its power back, and O what it lost.

The order of the positions follows from the seed and the number of the epoch alone, so object, probe and the number of
epochs done are the whole state. On the CPU what lies between two transforms is one compiled pass (`loops="numba"`);
the same equations in torch calls run on any device (`loops="torch"`), CUDA among them. Both sum in a fixed order: the
number of threads does not change a bit.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels import jit
from kernels.devices import KernelRefused, thread_count, torch_device

Array = npt.NDArray[Any]

TINY = 1e-30  # |Ψ|² below this has no phase
COVERED = 0.1  # of the greatest illumination: pixels with more have an object
PART = 4  # positions that share a partial sum of dO, and that a thread takes at a time


class LsqmlRefused(KernelRefused):
    """These arrays or settings are no ptychographic data set; the message says why."""


@dataclass(frozen=True)
class Settings:
    """What a reconstruction is made with.

    Attributes:
        batch: positions of a minibatch.
        seed: of the order of the positions, epoch by epoch.
        refine_probe: the probe is moved too.
        object_damping: of W's greatest, under dO.
        step_damping: of the mean diagonal, added to the 2×2 systems.
        relaxation: of a step's length.
    """

    batch: int = 8
    seed: int = 0
    refine_probe: bool = True
    object_damping: float = 0.1
    step_damping: float = 0.1
    relaxation: float = 0.9

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise LsqmlRefused(f"a minibatch has at least 1 position, not {self.batch}")
        for name in ("object_damping", "step_damping", "relaxation"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise LsqmlRefused(f"{name} is finite and not negative, not {value}")


@dataclass(frozen=True)
class Frame:
    """Where the patches lie.

    Attributes:
        origin: (row, column) of the object's pixel [0, 0] in the coordinates of x and y.
        shape: of the object, (rows, columns): what the patches cover, not a pixel more.
        rows, columns: int64 (n,), the first row and column of each patch in the object.
        fraction: float64 (n, 2), what is left of (y, x), at most half a pixel.
    """

    origin: tuple[int, int]
    shape: tuple[int, int]
    rows: Array
    columns: Array
    fraction: Array

    @classmethod
    def of(cls, x: Array, y: Array, n: int) -> Frame:
        """Of positions (pixels; the patch's pixel [n/2, n/2] lies there)."""
        exact = np.stack([np.asarray(y, np.float64), np.asarray(x, np.float64)], axis=1)
        whole = np.floor(exact + 0.5).astype(np.int64)
        first = whole - n // 2
        origin = first.min(axis=0)
        rows, columns = (first - origin).T.copy()
        return cls(
            (int(origin[0]), int(origin[1])),
            (int(rows.max()) + n, int(columns.max()) + n),
            rows,
            columns,
            exact - whole,
        )

    def illumination(self, probe: Array) -> Array:
        """W = Σ|P|² over all positions, float64 of `shape`; fractions of a pixel are left out."""
        return _illumination(self, torch.from_numpy(np.ascontiguousarray(probe))).numpy()


class Lsqml:
    """A reconstruction under way.

    Args:
        amplitude: (n, N, N) square roots of intensities, fftshifted: frequency 0 at [N/2, N/2]. N is even.
        x, y: (n,) positions, pixels.
        probe: (N, N) complex, to start from. Its power is set to the mean power of a frame, as |O| = 1 asks.
        start: complex object to start from; None: ones.
        device: "cpu", "cuda", "cuda:1".
        threads: of the CPU.
        loops: "numba" (CPU only) or "torch"; None: the faster there.

    Raises:
        LsqmlRefused: shapes, dtypes or values that are no such data set.
        DeviceMissing: CUDA was asked for, and there is none.
    """

    def __init__(
        self,
        amplitude: Array,
        x: Array,
        y: Array,
        probe: Array,
        settings: Settings | None = None,
        *,
        start: Array | None = None,
        device: str = "cpu",
        threads: int | None = 1,
        loops: Literal["numba", "torch"] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        _check(amplitude, x, y, probe)
        self.device = torch_device(device)
        on_cpu = self.device.type == "cpu"
        if loops == "numba" and not on_cpu:
            raise LsqmlRefused(f"the compiled loops run on the cpu, not on {device}: leave `loops` out")
        self.n = amplitude.shape[-1]
        self.frame = Frame.of(x, y, self.n)
        powers = np.einsum("kij,kij->k", amplitude, amplitude, dtype=np.float64)
        self.power = float(powers.sum())
        given = float(np.sum(np.abs(np.asarray(probe, np.complex128)) ** 2))
        self.probe_scale = float(np.sqrt(powers.mean() / given))
        begin = np.ones(self.frame.shape, np.complex64) if start is None else np.asarray(start, np.complex64)
        if begin.shape != self.frame.shape or not np.isfinite(begin).all():
            raise LsqmlRefused(
                f"the start is a finite object of {self.frame.shape}, as the positions ask, not {begin.shape}"
            )
        # Frequency 0 goes to [0, 0], once.
        unshifted = np.fft.ifftshift(np.asarray(amplitude, np.float32), axes=(-2, -1))
        state = _State(
            torch.from_numpy(begin.copy()).to(self.device),
            torch.from_numpy((np.asarray(probe) * self.probe_scale).astype(np.complex64)).to(self.device),
            torch.from_numpy(np.ascontiguousarray(unshifted)).to(self.device),
        )
        self._state = state
        self.epochs_done = 0
        self._loops: _Backend
        if loops == "numba" or (loops is None and on_cpu):
            self._loops = _Compiled(state, self.frame, self.settings, thread_count(threads))
        else:
            self._loops = _Tensors(state, self.frame, self.settings)

    @property
    def object(self) -> Array:
        """complex64 of `frame.shape`, a copy."""
        return np.array(self._state.object.cpu().numpy())

    @property
    def probe(self) -> Array:
        """complex64 (N, N), a copy."""
        return np.array(self._state.probe.cpu().numpy())

    def restore(self, object_: Array, probe: Array, epochs_done: int) -> None:
        """Go on from what `object`, `probe` and `epochs_done` were.

        Raises:
            LsqmlRefused: they are of another reconstruction.
        """
        if object_.shape != self.frame.shape or probe.shape != (self.n, self.n):
            raise LsqmlRefused(
                f"the state is of an object {object_.shape} and a probe {probe.shape};"
                f" here they are {self.frame.shape} and {(self.n, self.n)}"
            )
        self._state.object.copy_(torch.from_numpy(np.asarray(object_, np.complex64)))
        self._state.probe.copy_(torch.from_numpy(np.asarray(probe, np.complex64)))
        self.epochs_done = epochs_done

    def epoch(self) -> float:
        """Each position once, minibatch by minibatch.

        Returns:
            The relative error of the amplitudes, sqrt(Σ(|Ψ|-√I)²/ΣI), each frame's as it was before its update.
        """
        order = batch_order(len(self.frame.rows), self.settings.seed, self.epochs_done)
        with torch.inference_mode():
            self._loops.begin()
            error = 0.0
            for first in range(0, len(order), self.settings.batch):
                error += self._loops.update(order[first : first + self.settings.batch])
            self._balance()
        self.epochs_done += 1
        return float(np.sqrt(error / self.power))

    def update(self, indices: Array) -> float:
        """One minibatch of these positions, with W of the probe as it is. Returns Σ(|Ψ|-√I)²."""
        with torch.inference_mode():
            self._loops.begin()
            return self._loops.update(np.asarray(indices, np.int64))

    def residuals(self) -> Array:
        """Σ(|Ψ|-√I)² of each frame, float64 (n,), with object and probe as they are."""
        state, n = self._state, self.n
        found = np.zeros(len(self.frame.rows))
        spectrum = torch.fft.fft2(state.probe)
        angle = -2j * np.pi * np.fft.fftfreq(n)
        for i, (row, column) in enumerate(zip(self.frame.rows, self.frame.columns, strict=True)):
            down, across = np.exp(self.frame.fraction[i][:, None] * angle).astype(np.complex64)
            phase = torch.from_numpy(down[:, None] * across).to(self.device)
            seen = state.object[row : row + n, column : column + n]
            modulus = torch.fft.fft2(torch.fft.ifft2(spectrum * phase) * seen, norm="ortho").abs()
            found[i] = float(((modulus - state.amplitude[i]) ** 2).sum(dtype=torch.float64))
        return found

    def _balance(self) -> None:
        """The probe's power back to that of a mean frame, the object as much the other way: no wave changes."""
        if not self.settings.refine_probe:
            return
        probe = self._state.probe.cpu().numpy().astype(np.complex128)
        found = float(np.sum(probe.real**2 + probe.imag**2))
        if found > 0 and np.isfinite(found):
            factor = float(np.float32(np.sqrt(self.power / len(self.frame.rows) / found)))
            self._state.probe.mul_(factor)
            self._state.object.mul_(1 / factor)

    def covered(self) -> npt.NDArray[np.bool_]:
        """Pixels whose illumination W is more than `COVERED` of the greatest."""
        return covered(self.frame, self.probe)

    def close(self) -> None:
        """End the threads."""
        self._loops.close()


def covered(frame: Frame, probe: Array) -> npt.NDArray[np.bool_]:
    """Pixels of the object whose illumination is more than `COVERED` of the greatest."""
    light = frame.illumination(probe)
    return np.asarray(light > COVERED * light.max())


def batch_order(count: int, seed: int, epoch: int) -> Array:
    """The order of positions in an epoch: int64 (count,), the same on any machine."""
    words = hashlib.sha256(f"lsqml order {seed} {epoch}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(words[:16], "little")))
    return generator.permutation(count).astype(np.int64)


def two_steps(sums: Array, settings: Settings) -> tuple[float, float]:
    """The mean steps (object, probe) of a minibatch.

    Args:
        sums: float64 (B, 5): |dO·P|², Re dO·P·conj(dP·O), |dP·O|², Re conj(dO·P)·χ, Re conj(dP·O)·χ of each position.
    """
    return _two_steps(sums, settings.refine_probe, settings.step_damping, settings.relaxation)


# --- what both sets of loops share ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _State:
    object: Tensor  # complex64 (H, W)
    probe: Tensor  # complex64 (N, N)
    amplitude: Tensor  # float32 (n, N, N), frequency 0 at [0, 0]


class _Backend(Protocol):
    def begin(self) -> None:
        """W of the probe as it is."""

    def update(self, indices: Array) -> float:
        """One minibatch. Returns Σ(|Ψ|-√I)²."""

    def close(self) -> None: ...


def _illumination(frame: Frame, probe: Tensor) -> Tensor:
    """float64 of the object's shape: how often a patch begins at a pixel, convolved with |P|²."""
    n = probe.shape[-1]
    shape = frame.shape
    starts = np.zeros(shape)
    np.add.at(starts, (frame.rows, frame.columns), 1.0)
    density = torch.zeros(shape, dtype=torch.float64, device=probe.device)
    density[:n, :n] = probe.real.double() ** 2 + probe.imag.double() ** 2
    # Nothing wraps: a patch that begins at a row of `starts` ends within the object.
    product = torch.fft.rfft2(torch.from_numpy(starts).to(probe.device)) * torch.fft.rfft2(density)
    light: Tensor = torch.fft.irfft2(product, s=shape)
    return light.clamp_(min=0)


def _inverse(light: Tensor, damping: float) -> Tensor:
    """1/sqrt(W² + (damping·max W)²), float32."""
    root: Tensor = torch.sqrt(light**2 + (damping * light.max()) ** 2).clamp_(min=TINY)
    return root.reciprocal_().float()


def _phases(frame: Frame, n: int) -> tuple[Array, Array] | None:
    """complex64 (n, N) along rows and along columns, or None where every position is whole."""
    if not frame.fraction.any():
        return None
    angle = -2j * np.pi * np.fft.fftfreq(n)
    rows, columns = (np.exp(part[:, None] * angle).astype(np.complex64) for part in frame.fraction.T)
    return rows, columns


def _check(amplitude: Array, x: Array, y: Array, probe: Array) -> None:
    if amplitude.ndim != 3 or amplitude.shape[1] != amplitude.shape[2] or amplitude.shape[1] % 2:
        raise LsqmlRefused(f"amplitudes are (n, N, N) with an even N, not {amplitude.shape}")
    count, n = amplitude.shape[:2]
    if count == 0:
        raise LsqmlRefused("there are no frames to reconstruct from")
    for name, found in (("x", x), ("y", y)):
        if found.shape != (count,) or not np.isfinite(found).all():
            raise LsqmlRefused(f"{name} is a finite number for each of the {count} frames, not {found.shape}")
    if probe.shape != (n, n) or not np.isfinite(probe).all() or not np.any(probe):
        raise LsqmlRefused(f"the probe is finite, not empty, and {(n, n)} as the frames are, not {probe.shape}")
    if not np.isfinite(amplitude).all() or amplitude.min() < 0 or not amplitude.any():
        raise LsqmlRefused("amplitudes are finite, not negative, and not all 0")


# --- torch calls, on any device ---------------------------------------------------------------------------------


class _Tensors:
    """The equations as they are written."""

    def __init__(self, state: _State, frame: Frame, settings: Settings) -> None:
        self.state, self.frame, self.settings = state, frame, settings
        n, device = state.probe.shape[-1], state.probe.device
        phases = _phases(frame, n)
        self.phases = None if phases is None else tuple(torch.from_numpy(p).to(device) for p in phases)
        self.span = torch.arange(n, device=device)
        self.canvas = torch.zeros_like(state.object)
        self.rows, self.columns = (torch.from_numpy(a).to(device) for a in (frame.rows, frame.columns))

    def begin(self) -> None:
        self.inverse = _inverse(_illumination(self.frame, self.state.probe), self.settings.object_damping)

    def update(self, indices: Array) -> float:
        state, n = self.state, len(self.span)
        at = torch.from_numpy(indices).to(state.probe.device)
        rows = self.rows[at][:, None, None] + self.span[:, None]
        columns = self.columns[at][:, None, None] + self.span
        patches = state.object[rows, columns]
        probes, phase = state.probe[None], None
        if self.phases is not None:
            phase = self.phases[0][at][:, :, None] * self.phases[1][at][:, None, :]
            probes = torch.fft.ifft2(torch.fft.fft2(state.probe) * phase)
        far = torch.fft.fft2(probes * patches, norm="ortho")
        power = far.real**2 + far.imag**2
        modulus = power.sqrt()
        measured = state.amplitude[at]
        error = ((modulus - measured) ** 2).sum(dtype=torch.float64)
        factor = torch.where(power > TINY, measured / modulus - 1, 0.0)
        chi = torch.fft.ifft2(far * factor, norm="ortho")

        toward = chi * patches.conj()
        if phase is None:
            d_probe = toward.mean(dim=0)
        else:
            d_probe = torch.fft.ifft2((torch.fft.fft2(toward) * phase.conj()).mean(dim=0))
        self.canvas.zero_()
        parts = chi * probes.conj()
        # One after another: an indexed sum on CUDA adds in any order.
        for part, i in zip(parts, indices, strict=True):
            row, column = int(self.frame.rows[i]), int(self.frame.columns[i])
            self.canvas[row : row + n, column : column + n] += part
        d_object = self.canvas * self.inverse

        by_object, by_probe = d_object[rows, columns] * probes, d_probe * patches

        def dot(a: Tensor, b: Tensor) -> Tensor:
            return (a.real * b.real + a.imag * b.imag).sum(dim=(1, 2), dtype=torch.float64)

        pairs = ((by_object, by_object), (by_object, by_probe), (by_probe, by_probe), (by_object, chi), (by_probe, chi))
        sums = torch.stack([dot(a, b) for a, b in pairs], dim=1).cpu().numpy()
        a_object, a_probe = two_steps(sums, self.settings)
        state.object.add_(d_object, alpha=a_object)
        state.probe.add_(d_probe, alpha=a_probe)
        return float(error)

    def close(self) -> None:
        pass


# --- compiled passes, on the CPU --------------------------------------------------------------------------------


class _Compiled:
    """Transforms by torch, everything between two of them one pass over the memory."""

    def __init__(self, state: _State, frame: Frame, settings: Settings, threads: int) -> None:
        self.state, self.frame, self.settings = state, frame, settings
        n = state.probe.shape[-1]
        self.object, self.probe, self.amplitude = (t.numpy() for t in (state.object, state.probe, state.amplitude))
        phases = _phases(frame, n)
        self.whole = phases is None
        unused: Array = np.zeros((1, n), np.complex64)
        self.down: Array
        self.across: Array
        self.down, self.across = phases if phases is not None else (unused, unused)
        size = (settings.batch, n, n)
        # Where every position is whole there is one probe for all.
        self.probes = state.probe[None] if self.whole else torch.zeros(size, dtype=torch.complex64)
        self.waves, self.far, self.chi = (torch.zeros(size, dtype=torch.complex64) for _ in range(3))
        parts = -(-settings.batch // PART)
        self.canvas = np.zeros((parts, *frame.shape), np.complex64)
        self.gradient = torch.zeros(parts, n, n, dtype=torch.complex64)
        self.sums, self.errors = np.zeros((settings.batch, 5)), np.zeros(settings.batch)
        self.parts: dict[tuple[int, int], _Part] = {}
        self.team = _Team(min(threads, parts))

    def begin(self) -> None:
        light = _illumination(self.frame, self.state.probe)
        self.inverse = _inverse(light, self.settings.object_damping).numpy()

    def update(self, indices: Array) -> float:
        count = len(indices)
        parts = [self._part(first, min(first + PART, count)) for first in range(0, count, PART)]
        rows, columns = self.frame.rows[indices], self.frame.columns[indices]
        spectrum = None if self.whole else torch.fft.fft2(self.state.probe).numpy()

        def gradients(k: int) -> None:
            part = parts[k]
            some, at = part.some, (rows[part.some], columns[part.some])
            if spectrum is not None:
                _shift(spectrum, self.down, self.across, indices[some], part.waves)
                torch.fft.ifft2(part.waves_t, out=part.probes_t)
            _exit_waves(part.probes, self.object, *at, part.waves)
            torch.fft.fft2(part.waves_t, norm="ortho", out=part.far_t)
            _modulus(part.far, self.amplitude, indices[some], self.errors[some])
            torch.fft.ifft2(part.far_t, norm="ortho", out=part.chi_t)
            _gradients(part.chi, part.probes, self.object, *at, self.canvas[k], part.waves)
            if spectrum is not None:
                torch.fft.fft2(part.waves_t, out=part.far_t)
            found = part.waves if spectrum is None else part.far
            _collect(found, self.down, self.across, indices[some], spectrum is not None, part.gradient)

        self.team.run(gradients, len(parts))
        total = self.gradient[: len(parts)].sum(dim=0).div_(count)
        d_probe_t = total if self.whole else torch.fft.ifft2(total)
        d_probe = d_probe_t.numpy()
        _direction(self.canvas[: len(parts)], self.inverse)

        def dots(k: int) -> None:
            part = parts[k]
            at = rows[part.some], columns[part.some]
            _dots(self.canvas[0], part.probes, d_probe, self.object, part.chi, *at, self.sums[part.some])

        self.team.run(dots, len(parts))
        a_object, a_probe = two_steps(self.sums[:count], self.settings)
        _move(self.object, self.canvas[0], a_object)
        self.state.probe.add_(d_probe_t, alpha=a_probe)
        return float(self.errors[:count].sum())

    def close(self) -> None:
        self.team.close()

    def _part(self, first: int, last: int) -> _Part:
        if (first, last) not in self.parts:
            some = slice(first, last)
            probes = self.probes if self.whole else self.probes[some]
            waves, far, chi = self.waves[some], self.far[some], self.chi[some]
            arrays = probes.numpy(), waves.numpy(), far.numpy(), chi.numpy(), self.gradient[first // PART].numpy()
            self.parts[first, last] = _Part(some, probes, waves, far, chi, *arrays)
        return self.parts[first, last]


class _Part(NamedTuple):
    """What one thread works in: positions of a minibatch, as tensors and as arrays over the same memory."""

    some: slice
    probes_t: Tensor
    waves_t: Tensor
    far_t: Tensor
    chi_t: Tensor
    probes: Array
    waves: Array
    far: Array
    chi: Array
    gradient: Array


class _Team:
    """This thread and some others, which take numbered pieces of work in turn."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.doors: list[queue.SimpleQueue[Callable[[], None] | None]] = [
            queue.SimpleQueue() for _ in range(threads - 1)
        ]
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.members = [threading.Thread(target=self._work, args=(door,), daemon=True) for door in self.doors]
        for member in self.members:
            member.start()

    def run(self, work: Callable[[int], None], pieces: int) -> None:
        """Pieces 0, threads, 2·threads, ... are done here. Which thread does one never changes a result."""
        helpers = min(self.threads, pieces) - 1

        def share(of: int) -> None:
            for piece in range(of, pieces, self.threads):
                work(piece)

        for i in range(helpers):
            self.doors[i].put(lambda of=i + 1: share(of))  # type: ignore[misc]
        failed: list[BaseException] = []
        try:
            share(0)
        finally:
            failed = [error for _ in range(helpers) if (error := self.done.get()) is not None]
        if failed:
            raise failed[0]

    def close(self) -> None:
        for door in self.doors:
            door.put(None)
        for member in self.members:
            member.join()

    def _work(self, door: queue.SimpleQueue[Callable[[], None] | None]) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            while (work := door.get()) is not None:
                try:
                    work()
                    self.done.put(None)
                except BaseException as error:
                    self.done.put(error)


@jit.fused
def _shift(spectrum: Array, rows: Array, columns: Array, indices: Array, out: Array) -> None:
    """Spectra of the moved probes."""
    for b in range(len(indices)):
        down, across = rows[indices[b]], columns[indices[b]]
        for i in range(spectrum.shape[0]):
            _multiply(spectrum[i], down[i], across, out[b, i])


@jit.part
def _multiply(first: Array, factor: complex, second: Array, out: Array) -> None:
    for j in range(len(out)):
        out[j] = first[j] * (factor * second[j])


@jit.fused
def _exit_waves(probes: Array, object_: Array, rows: Array, columns: Array, out: Array) -> None:
    """ψ = P·O."""
    n = out.shape[1]
    for b in range(len(rows)):
        probe = probes[min(b, probes.shape[0] - 1)]
        for i in range(n):
            seen, made, light = object_[rows[b] + i, columns[b] : columns[b] + n], out[b, i], probe[i]
            for j in range(n):
                made[j] = light[j] * seen[j]


@jit.fused
def _modulus(far: Array, amplitude: Array, indices: Array, errors: Array) -> None:
    """Ψ becomes √I·Ψ/|Ψ| - Ψ; errors: Σ(|Ψ|-√I)² of each."""
    n = far.shape[1]
    part = np.zeros(n, np.float32)
    for b in range(len(indices)):
        part[:] = 0
        for i in range(n):
            waves, measured = far[b, i], amplitude[indices[b], i]
            for j in range(n):
                real, imag = waves[j].real, waves[j].imag
                power = real * real + imag * imag
                modulus = np.sqrt(power)
                apart = measured[j] - modulus
                part[j] += apart * apart
                # √I/|Ψ| - 1, and 0 where Ψ has no phase: there apart/1 would be multiplied by 0.
                factor = apart / (modulus if power > np.float32(TINY) else np.float32(1))
                waves[j] = complex(real * factor, imag * factor)
        errors[b] = part.astype(np.float64).sum()


@jit.fused
def _gradients(
    chi: Array, probes: Array, object_: Array, rows: Array, columns: Array, canvas: Array, toward: Array
) -> None:
    """canvas gets χ·conj(P) on top, toward becomes χ·conj(O)."""
    n = chi.shape[1]
    for b in range(len(rows)):
        probe = probes[min(b, probes.shape[0] - 1)]
        for i in range(n):
            row, first = rows[b] + i, columns[b]
            total, seen = canvas[row, first : first + n], object_[row, first : first + n]
            waves, light, made = chi[b, i], probe[i], toward[b, i]
            for j in range(n):
                total[j] += waves[j] * np.conj(light[j])
            for j in range(n):
                made[j] = waves[j] * np.conj(seen[j])


@jit.fused
def _collect(waves: Array, rows: Array, columns: Array, indices: Array, moved: bool, out: Array) -> None:
    """Their sum; spectra are moved back by their position's fraction first."""
    out[:] = 0
    for b in range(len(indices)):
        for i in range(out.shape[0]):
            given, total = waves[b, i], out[i]
            if moved:
                factor, across = rows[indices[b], i], columns[indices[b]]
                for j in range(len(total)):
                    total[j] += given[j] * np.conj(factor * across[j])
            else:
                for j in range(len(total)):
                    total[j] += given[j]


@jit.fused
def _direction(canvas: Array, inverse: Array) -> None:
    """dO: the parts' sum times `inverse` into the first part; the others become 0."""
    for i in range(canvas.shape[1]):
        total, factor = canvas[0, i], inverse[i]
        for k in range(1, canvas.shape[0]):
            part = canvas[k, i]
            for j in range(len(total)):
                total[j] += part[j]
                part[j] = 0
        for j in range(len(total)):
            total[j] *= factor[j]


@jit.fused
def _dots(
    direction: Array,
    probes: Array,
    d_probe: Array,
    object_: Array,
    chi: Array,
    rows: Array,
    columns: Array,
    sums: Array,
) -> None:
    """The five sums of `two_steps`: columns first, in float32, so that no sum is reordered to be fast."""
    n = chi.shape[1]
    part = np.zeros((5, n), np.float32)
    oo, op, pp, of, pf = part[0], part[1], part[2], part[3], part[4]
    for b in range(len(rows)):
        probe = probes[min(b, probes.shape[0] - 1)]
        part[:] = 0
        for i in range(n):
            row, first = rows[b] + i, columns[b]
            toward, seen = direction[row, first : first + n], object_[row, first : first + n]
            light, dark, waves = probe[i], d_probe[i], chi[b, i]
            for j in range(n):
                one, two, wave = toward[j] * light[j], dark[j] * seen[j], waves[j]
                oo[j] += one.real * one.real + one.imag * one.imag
                op[j] += one.real * two.real + one.imag * two.imag
                pp[j] += two.real * two.real + two.imag * two.imag
                of[j] += one.real * wave.real + one.imag * wave.imag
                pf[j] += two.real * wave.real + two.imag * wave.imag
        for k in range(5):
            sums[b, k] = part[k].astype(np.float64).sum()


@jit.exact
def _two_steps(sums: Array, probe: bool, damping: float, relaxation: float) -> tuple[float, float]:
    count = len(sums)
    mean_oo, mean_pp = damping * sums[:, 0].sum() / count, damping * sums[:, 2].sum() / count
    a_object, a_probe = 0.0, 0.0
    for oo, op, pp, of, pf in sums:
        oo += mean_oo
        pp += mean_pp
        if not probe:
            op, pf, pp = 0.0, 0.0, 1.0
        det = oo * pp - op * op
        # A frame that fits already has no direction, and no step.
        if det > 0:
            a_object += max((of * pp - pf * op) / det, 0.0)
            a_probe += max((pf * oo - of * op) / det, 0.0)
    return a_object * relaxation / count, a_probe * relaxation / count


@jit.fused
def _move(object_: Array, direction: Array, step: float) -> None:
    """One step; the direction becomes 0."""
    length = np.float32(step)
    for i in range(object_.shape[0]):
        to, by = object_[i], direction[i]
        for j in range(len(to)):
            to[j] += by[j] * length
            by[j] = 0
