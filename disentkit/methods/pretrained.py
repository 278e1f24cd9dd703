"""BigGANs that others trained on ImageNet, as models of the kit: an adapter of the package `pytorch-pretrained-biggan`.

    pip install 'disentkit[biggan]'

    model = pretrained.load("biggan-deep-128", truncation=0.4)          # the weights, about 200 MB, are fetched once
    model = pretrained.load("folder/with/the/two/files")                # without a network
    model = pretrained.PretrainedBigGAN(BigGAN(BigGANConfig(...)))      # an object of the package, any configuration

Brock, Donahue, Simonyan 2019 (arXiv 1809.11096) trained plain and deep models; the package has the deep ones only. In
those the whole z, beside the class embedding, reaches every block: there are no chunks, so how long a direction is per
level, a figure of Plumerault et al. 2020, cannot be drawn with them. The package (0.1.1, of 2019) has the generator
only, and its weights lie at an address of that year: whether they are still there, only a try can say.

Truncation. A picture is drawn from z = truncation * e, e ~ N(0, I) cut off at +-2, and batch norm uses the statistics
that were gathered for this truncation. The code holds e, so that a block "z" of N(0, 1), a ball of radius sqrt(d) and a
slider from -2 to 2 mean what they mean for other models. Plumerault et al. do not truncate: that is truncation 1, up to
the cut at 2. Statistics are stored for multiples of 0.02; between two of them the package mixes both with their weights
swapped, so a truncation must be a multiple, and one that division by 0.02 leaves whole: not 0.14, 0.28, 0.56 or 0.58.
"""

from __future__ import annotations

import logging
import math
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError, finite, one_of
from disentkit.models import device_of

NAMES = ("biggan-deep-128", "biggan-deep-256", "biggan-deep-512")
WEIGHTS, CONFIG = "pytorch_model.bin", "config.json"  # what the package calls the files in a folder
CUT = 2.0  # e is drawn from N(0, 1) within +-CUT
IMAGENET = 1_000
# The ten classes that the released script of Plumerault et al. learns directions for, by their number in ImageNet.
CLASSES = {
    14: "indigo bunting",
    136: "European gallinule",
    306: "rhinoceros beetle",
    417: "balloon",
    672: "mountain tent",
    717: "pickup",
    852: "tennis ball",
    914: "yawl",
    933: "cheeseburger",
    992: "agaric",
}


class PretrainedBigGAN(nn.Module):
    """The model: blocks `class` (one-hot, 1,000 of ImageNet) and `z` (128 numbers). It has no encoder.

    biggan      a `pytorch_pretrained_biggan.BigGAN`, of any configuration; it stays in eval mode and is frozen
    truncation  in 0 ... 1, one for which its batch norms hold statistics: a multiple of 0.02

    Raises UserError for another truncation and for a configuration whose layers do not make its pictures.
    """

    def __init__(self, biggan: nn.Module, truncation: float = 0.4):
        super().__init__()
        c = biggan.config
        self.truncation = _stored(truncation, c.n_stats)
        side = 4 * 2 ** sum(bool(layer[0]) for layer in c.layers)  # a layer that begins with True doubles the side
        if side != c.output_dim:
            raise UserError(f"this BigGAN's layers draw {side} pixels, but its configuration says {c.output_dim}")
        self.image_shape = (3, side, side)
        self.classes = c.num_classes
        self.codes = CodeSpace([
            Block("class", "onehot", (c.num_classes,), inferred=False, labels=labels(c.num_classes)),
            Block("z", "gaussian", (c.z_dim,), inferred=False),
        ])  # fmt: skip
        self.biggan = biggan.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> PretrainedBigGAN:
        """Stays in eval mode: in the other one a forward pass would move the spectral norms."""
        return super().train(False)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, 1128) -> images (N, 3, H, H) in [0, 1]; a class may be any point of the simplex."""
        c, e = codes.split([self.classes, codes.shape[1] - self.classes], dim=1)
        return (self.biggan(self.truncation * e, c, self.truncation) + 1) / 2

    def prior(self, n: int, rng: torch.Generator) -> Tensor:
        """n codes (n, D): classes with equal chance, e ~ N(0, I) cut off at +-2."""
        codes = self.codes.prior(n, rng)
        share = torch.rand(n, *self.codes["z"].shape, generator=rng, device=rng.device)
        share = math.erf(CUT / math.sqrt(2)) * (2 * share - 1)
        return self.codes.write(codes, "z", math.sqrt(2) * torch.erfinv(share))

    def first_layer(self, label: int | None = None) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
        """Weight (16 C, d) and bias (16 C,) of the layer that makes the first map of z, and that map's shape.

        The layer reads the class embedding too, which is part of the bias: that of class `label`, or of all classes'
        mean. The same z reaches every later block, so these weights are only a part of what z does.
        """
        embed = self.biggan.embeddings.weight.T  # (classes, d)
        embed = embed.mean(0) if label is None else embed[label]
        W = self._reads(self.biggan.generator.gen_z)  # (16 C, 2 d)
        d, channels = len(embed), len(W) // 16
        b = self.biggan.generator.gen_z.bias + W[:, d:] @ embed
        # The package's maps are (4, 4, C), as in the TensorFlow original.
        W, b = (part.reshape(16, channels, -1).transpose(0, 1).flatten(0, 1) for part in (W[:, :d], b))
        return self.truncation * W, b[:, 0], (channels, 4, 4)

    def level_weights(self) -> dict[str, Tensor]:
        """{"z": (out, d)}: the weights that multiply z in the first layer and in every gain and bias of batch norm."""
        d = self.codes["z"].size
        norms = [norm for norm in self.biggan.modules() if getattr(norm, "conditional", False)]
        layers = [self.biggan.generator.gen_z, *(layer for norm in norms for layer in (norm.scale, norm.offset))]
        return {"z": torch.cat([self._reads(layer)[:, :d] for layer in layers])}

    @torch.no_grad()
    def _reads(self, layer: nn.Linear) -> Tensor:
        """The weight (out, in) as it is used, divided by its largest singular value."""
        unit = torch.eye(layer.in_features, device=device_of(self))
        return (layer(unit) - layer(torch.zeros_like(unit[:1]))).T


def labels(classes: int) -> tuple[str, ...]:
    """A word for each class: its number, with its name where it is one of those ten."""
    named = CLASSES if classes == IMAGENET else {}
    return tuple(f"{i} {named[i]}" if i in named else str(i) for i in range(classes))


def load(name: str | Path = NAMES[0], truncation: float = 0.4, cache: str | Path | None = None) -> PretrainedBigGAN:
    """A pretrained model by name, whose weights the package fetches, or from a folder that holds them.

    name   one of NAMES, or a folder with the files `pytorch_model.bin` and `config.json`
    cache  where fetched files are kept; the package's own place without one

    Raises UserError: the package is not installed, the name is unknown, the weights cannot be fetched or read.
    """
    try:
        import pytorch_pretrained_biggan as package
        from pytorch_pretrained_biggan import model as source
    except ImportError as e:
        raise UserError(f"BigGAN's package is not installed ({e}): pip install 'disentkit[biggan]'") from None
    _stored(truncation)
    name = str(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [file for file in (WEIGHTS, CONFIG) if not (folder / file).is_file()]
        if missing:
            raise UserError(f"{folder} holds no {' and no '.join(missing)}; a BigGAN is both, {WEIGHTS} and {CONFIG}")
        name = str(folder)
    else:
        one_of("BigGAN", name, NAMES)
    log = logging.getLogger(source.__name__)
    was, log.disabled = log.disabled, True  # it would call every failure a wrong name
    try:
        biggan = package.BigGAN.from_pretrained(name, cache_dir=None if cache is None else str(cache))
    except OSError as e:
        why = " ".join(str(e).split())[:120]
        files = ((source.PRETRAINED_MODEL_ARCHIVE_MAP, WEIGHTS), (source.PRETRAINED_CONFIG_ARCHIVE_MAP, CONFIG))
        two = " and ".join(f"{where.get(name)} as {file}" for where, file in files)
        raise UserError(
            f"the weights of {name} cannot be fetched ({why}); put {two} in a folder, and load that"
        ) from None
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as e:
        raise UserError(f"{name} holds no BigGAN that the package reads ({' '.join(str(e).split())[:120]})") from None
    finally:
        log.disabled = was
    return PretrainedBigGAN(biggan, truncation)


def _stored(truncation: float, stats: int = 51) -> float:
    """The truncation, where the package finds it among the `stats` multiples at which it has statistics."""
    step, truncation = 1 / (stats - 1), finite("truncation", truncation, above=0)
    # It takes the whole part of truncation / step, and 0.14 / 0.02 is a little more than 7 in floating point.
    found = [k * step for k in range(1, stats) if k * step / step == k]
    near = min(found, key=lambda value: abs(value - truncation))
    if not math.isclose(near, truncation, rel_tol=1e-6):
        raise UserError(
            f"batch norm has no statistics for truncation {truncation:g}; the nearest that it has is {near:g}"
        )
    return near
