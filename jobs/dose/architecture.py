"""What the learned arms' network is made of, in words and numbers that every implementation shares.

Diffraction goes through a fixed first layer and a small encoder with an amplitude and a phase decoder:

    fixed layer   what one frame says by itself, four damped least squares steps from the flat object of its own light:
                  O = a, with a² = Σ I / Σ|P|²; then, with F = FFT(P·O)/N,
                  O += conj(P)/(|P|² + 0.3·max|P|²) · FFT⁻¹[F·(I - |F|²)/(I + |F|² + 0.6)]·N.
                  It has no weights; what it leaves open (noise, and what needs more than a frame) is for what follows.
                  Then the same averaged over the frames of its group, each at its place
                  (kernels.translation.groups).
    features      4·(re - a, im) of both, the frame's own and the group's: four channels, each frame by itself
    encoder       3×3 convolutions with relu, three times by stride 2
    decoders      nearest upsampling, the encoder's features of the same size beside it, a 3×3 convolution; two of them
    object        amplitude a·softplus(u + log(e-1)), which is a for u = 0; phase π·tanh(v)

All frames of a group share the weights, so one network serves every gridsize. No library is needed here: the Keras form
is `jobs.dose.network`, the double precision one `jobs.dose.network_oracle`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

FEATURES = 4
DECODERS = ("amplitude", "phase")
# The fixed layer: its steps, and what damps them: of |P|² in parts of its greatest, and of the light (normalised data
# has 1/4 a pixel on average). The second keeps single photons from being fitted.
FIXED_STEPS = 4
PROBE_FLOOR = 0.3
FIELD_FLOOR = 0.6
FEATURE_GAIN = 4.0  # so that features are about 1
# Of the first weights of the decoders' last layers, in parts of He's: a training begins near the flat object.
HEAD_START = 0.1
# Where the probe is dark a patch still has a weight, so that a canvas is never divided by nothing.
WEIGHT_FLOOR = 1e-3
UNIT_AMPLITUDE = math.log(math.e - 1)  # softplus of it is 1


@dataclass(frozen=True)
class Convolution:
    """A 3×3 convolution with bias and zero padding ("same"); `after` are the layers whose outputs it takes."""

    name: str
    inputs: int
    outputs: int
    stride: int = 1
    relu: bool = True


@dataclass(frozen=True)
class Architecture:
    """A network. Equal ones take each other's weights.

    Attributes:
        size: N, the side of a frame, a multiple of 8.
        width: channels after the first halving; half of it before, twice after.
    """

    size: int
    width: int = 16

    def __post_init__(self) -> None:
        if self.size < 8 or self.size % 8:
            raise ValueError(
                f"the network halves a frame three times: its side must be a multiple of 8, not {self.size}"
            )
        if self.width < 2 or self.width % 2:
            raise ValueError(f"the network's width is even and at least 2, not {self.width}")

    def convolutions(self) -> tuple[Convolution, ...]:
        """All layers with weights, in the order of the bundle."""
        half, whole, twice = self.width // 2, self.width, 2 * self.width
        found = [
            Convolution("encoder_0", FEATURES, half),
            Convolution("encoder_1a", half, whole, 2),
            Convolution("encoder_1b", whole, whole),
            Convolution("encoder_2a", whole, twice, 2),
            Convolution("encoder_2b", twice, twice),
            Convolution("encoder_3a", twice, twice, 2),
            Convolution("encoder_3b", twice, twice),
        ]
        for name in DECODERS:
            found += [
                Convolution(f"{name}_2", twice + twice, twice),
                Convolution(f"{name}_1", twice + whole, whole),
                Convolution(f"{name}_0", whole + half, half),
                Convolution(f"{name}_head", half, 1, relu=False),
            ]
        return tuple(found)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the weights, by name: kernels (3, 3, inputs, outputs) and biases (outputs,)."""
        out: dict[str, tuple[int, ...]] = {}
        for layer in self.convolutions():
            out[f"{layer.name}.kernel"] = (3, 3, layer.inputs, layer.outputs)
            out[f"{layer.name}.bias"] = (layer.outputs,)
        return out

    def words(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)
