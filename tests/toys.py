"""One toy learner of every kind that the later papers need, 16 pixels and about 15 lines each.

`TOYS` names them; the generic tests (fit, capture safety, kill and resume, run, explorer, metrics) run over all of
them. If a toy ever needs an exception in a test, the house is wrong, not the toy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit import machine, training, workbench
from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.data.base import Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.models import Learner, adam

SIZE = 16


class Dots(Renderer):
    """A soft dot, 16x16: x, y, brightness, and a category (dot or ring). Batches have the wrappers' richer keys too."""

    name = "dots"
    image_shape = (1, SIZE, SIZE)
    space = FactorSpace([
        category("kind", "dot", "ring"),
        Factor("x", "real", (3.0, 6.0, 9.0, 12.0)),
        Factor("y", "real", (3.0, 6.0, 9.0, 12.0)),
        Factor("light", "real", (0.4, 0.7, 1.0)),
    ])  # fmt: skip

    def render(self, values: Tensor) -> Tensor:
        kind, x, y, light = (v[:, None, None] for v in values.T)
        axis = torch.arange(SIZE, device=values.device) + 0.5
        r = ((axis[None, None] - x) ** 2 + (axis[None, :, None] - y) ** 2 + 1e-6).sqrt()
        return (light * torch.exp(-((r - 2 * kind) ** 2) / 2)).unsqueeze(1)  # (n, 1, 16, 16)

    def sample(self, n, rng):
        batch = super().sample(n, rng)
        others = self.sample_fixed(1, 3, rng, groups=n)["x"]
        return batch | {"group": others.reshape(n, 3, 1, SIZE, SIZE)}


def mlp(*sizes: int, norm=False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers[: -2 if norm else -1])


class Coder(nn.Module):
    """The toys' model: an encoder and a decoder over any code space."""

    image_shape = (1, SIZE, SIZE)

    def __init__(self, codes: CodeSpace, norm=False):
        super().__init__()
        self.codes = codes
        read = sum(b.size for b in codes if b.inferred)
        self.encoder = mlp(SIZE * SIZE, 32, read)
        self.decoder = mlp(codes.size, 32, SIZE * SIZE, norm=norm)

    def encode(self, x):
        codes = self.codes.centre(len(x), x.device)
        for block, part in zip([b for b in self.codes if b.inferred], self.encode_parts(x)):
            codes = block.write(codes, part.softmax(-1) if block.kind == "onehot" else part.reshape(-1, *block.shape))
        return codes

    def encode_parts(self, x):
        return self.encoder(x.flatten(1)).split([b.size for b in self.codes if b.inferred], dim=1)

    def decode(self, codes):
        return self.decoder(codes).sigmoid().reshape(-1, *self.image_shape)

    def prior(self, n, rng):
        return self.codes.prior(n, rng)


@dataclass(frozen=True)
class Settings:
    lr: float = 1e-3
    batch: int = 8
    steps: int = 12
    size: int = SIZE


class Toy(Learner):
    """An autoencoder on `space`; subclasses change what their kind is about."""

    space = gaussian_blocks(4)
    norm = False

    def __init__(self, settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.coder = Coder(self.space, self.norm)

    @property
    def model(self):
        return self.coder

    def optimizers(self):
        return {"coder": adam(self.coder.parameters(), self.settings.lr)}

    def update(self, opt, loss):
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.detach()

    def step(self, opt, batch):
        x = batch["x"]
        z = self.coder.encode(x)
        z = z + 0.1 * torch.randn(z.shape, generator=self.rng, device=z.device)
        return {"recon": self.update(opt["coder"], F.mse_loss(self.coder.decode(z), x)), "code": z.detach().std(0)}


class TwoDraws(Toy):
    """FactorVAE, MIX: two batches, two players, one of which must stay float32."""

    draws = 2
    full_precision = ("D",)

    def __init__(self, settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.D = mlp(SIZE * SIZE, 16, 1)

    def optimizers(self):
        return super().optimizers() | {"D": adam(self.D.parameters(), self.settings.lr)}

    def step(self, opt, a, b):
        z, other = self.coder.encode(a["x"]), self.coder.encode(b["x"])
        mask = torch.rand(len(z), len(self.space), generator=self.rng, device=z.device) < 0.5
        mixed = self.coder.decode(self.space.mix(z, other, mask))
        g = self.update(
            opt["coder"], F.mse_loss(self.coder.decode(z), a["x"]) + F.softplus(-self.D(mixed.flatten(1))).mean()
        )
        d = F.softplus(-self.D(a["x"].flatten(1))) + F.softplus(self.D(mixed.detach().flatten(1)))
        return {"g": g, "d": self.update(opt["D"], d.mean())}


class Critic(Toy):
    """InfoWGAN-GP: five draws, a gradient penalty, a one-hot block and noise that no encoder reads."""

    draws = 5
    full_precision = ("D",)
    space = CodeSpace([
        Block("kind", "onehot", (2,), labels=("dot", "ring")),
        Block("x", "uniform", low=-1, high=1),
        Block("noise", "gaussian", (3,), inferred=False),
    ])  # fmt: skip

    def __init__(self, settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.D = mlp(SIZE * SIZE, 16, 1)

    def optimizers(self):
        return super().optimizers() | {"D": adam(self.D.parameters(), self.settings.lr, betas=(0.0, 0.9))}

    def step(self, opt, *batches):
        for batch in batches:
            real = batch["x"].flatten(1)
            fake = self.coder.decode(self.space.prior(len(real), self.rng)).flatten(1).detach()
            eps = torch.rand(len(real), 1, generator=self.rng, device=real.device)
            mid = (eps * real + (1 - eps) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(self.D(mid).sum(), mid, create_graph=True)
            d = self.D(fake).mean() - self.D(real).mean() + 10 * ((slope.norm(dim=1) - 1) ** 2).mean()
            d = self.update(opt["D"], d)
        c = self.space.prior(len(real), self.rng)
        x = self.coder.decode(c)
        info = F.mse_loss(self.coder.encode(x)[:, :3], c[:, :3])
        return {"d": d, "g": self.update(opt["coder"], info - self.D(x.flatten(1)).mean())}


class Groups(Toy):
    """GZS-Net: groups of images that share one attribute; one free block per attribute; a warm-up in t."""

    reads = ("x", "group")
    space = CodeSpace([Block("x", "free", (3,)), Block("rest", "free", (2, 2))])

    def step(self, opt, batch):
        a, b = batch["group"][:, 0], batch["group"][:, 1]
        za, zb = self.coder.encode(a), self.coder.encode(b)
        swapped = self.coder.decode(self.space.swap(za, zb, "x"))
        weight = (self.t / 10).clamp(max=1)
        return {
            "swap": self.update(opt["coder"], F.mse_loss(self.coder.decode(za), a) + weight * F.mse_loss(swapped, a))
        }


class EMA(Toy):
    """Generators: batch norm in training, and a moving average of the weights that decode uses."""

    norm = True

    def __init__(self, settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.average = Coder(self.space, self.norm).requires_grad_(False)
        self.average.load_state_dict(self.coder.state_dict())

    @property
    def model(self):
        return self.average

    def step(self, opt, batch):
        losses = super().step(opt, batch)
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.coder.parameters()):
                slow.lerp_(fast, 0.1)
            for slow, fast in zip(self.average.buffers(), self.coder.buffers()):
                slow.copy_(fast)
        return losses


class SecondStage(Toy):
    """A second method on a base run: a new encoder for a generator that must not change."""

    def __init__(self, settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.coder = Reencoder(base.model)

    def step(self, opt, batch):
        z = self.space.prior(len(batch["x"]), self.rng)
        with torch.no_grad():
            x = self.coder.decode(z)
        return {"z": self.update(opt["coder"], F.mse_loss(self.coder.encode(x), z))}


class Reencoder(nn.Module):
    """A fresh encoder in front of another model's decoder, which stays outside the module tree."""

    image_shape = (1, SIZE, SIZE)

    def __init__(self, model):
        super().__init__()
        self.codes, self._outside = model.codes, (model,)
        self.encoder = mlp(SIZE * SIZE, 32, self.codes.size)

    def encode(self, x):
        return self.encoder(x.flatten(1))

    def decode(self, codes):
        return self._outside[0].decode(codes)


@dataclass(frozen=True)
class Direction(Block):
    """A view: how far a code lies along u. Read t = <z, u>; write moves z along u until it reads v."""

    u: tuple[float, ...] = ()

    def read(self, codes):
        return codes @ torch.tensor(self.u, device=codes.device)[:, None]

    def write(self, codes, value):
        value = torch.as_tensor(value, dtype=codes.dtype, device=codes.device)
        return codes + (value - self.read(codes)) * torch.tensor(self.u, device=codes.device)


class Directions(Toy):
    """Continuous directions: one view per direction over a whole latent."""

    u = (0.5, -0.5, 0.5, 0.5)
    space = CodeSpace([Direction("zoom", "free", unit="px", u=u, at=(0,))], size=4)

    def __init__(self, settings, spec, base=None):
        super().__init__(settings, spec, base)
        self.coder = Viewed(self.space)


class Viewed(Coder):
    """A model whose one block is a view of its latent, so encode and prior speak of the whole latent."""

    def __init__(self, codes):
        super().__init__(gaussian_blocks(codes.size))
        self.codes = codes

    def encode(self, x):
        return self.encoder(x.flatten(1))

    def prior(self, n, rng):
        return torch.randn(n, self.codes.size, generator=rng, device=rng.device)


class Regrouped(Toy):
    """Latents grouped by search: one wide block made of scattered positions, the others as they were."""

    space = gaussian_blocks(5).regroup({"pose": ["z0", "z3"]})


class Maps(Toy):
    """StarGAN, feature mode: a block that is a feature map, beside one for an attribute."""

    space = CodeSpace([Block("layout", "map", (2, 4, 4)), Block("light", "free", (1,))])


TOYS = {toy.__name__: toy for toy in (Toy, TwoDraws, Critic, Groups, EMA, SecondStage, Directions, Regrouped, Maps)}


# ---- how tests train them, all alike


def quiet(text: str) -> None:
    """In place of `print`."""


def build(name: str, base=None, seed: int = 0) -> Learner:
    """A fresh toy whose weights come from `seed`."""
    with machine.seeded(seed):
        return TOYS[name](Settings(), Dots().spec, base)


def fit(learner: Learner, *, steps: int = 12, data: Renderer | None = None, **options) -> tuple[training.Fitted, dict]:
    """Train on one CPU thread, reading the losses every 5 steps; returns also all that was learned, for `same`."""
    kept, made = {}, learner.optimizers
    learner.optimizers = lambda: kept.update(made()) or kept
    options = {"device": "cpu", "precision": "float32", "threads": 1, "read_every": 5, "say": quiet} | options
    try:
        fitted = training.fit(learner, data or Dots(), steps=steps, batch=8, **options)
    finally:
        del learner.optimizers
    states = {key: opt.state_dict() for key, opt in kept.items()}
    return fitted, {"weights": learner.state_dict(), "optimizers": states, "rows": fitted.rows}


def train_run(name: str, **options) -> workbench.Run:
    """A finished run of a toy, by way of the workbench."""
    options = {"settings": Settings(), "data": Dots(), "device": "cpu", "threads": 1, "say": quiet} | options
    return workbench.train(name, **options)


def same(a, b, where: str = "") -> str:
    """Where two nests of dicts, lists and tensors first differ in a bit; empty where they are equal."""
    if isinstance(a, Tensor):
        return "" if a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) else where or "tensor"
    if isinstance(a, dict | list | tuple):
        keys = list(a) if isinstance(a, dict) else range(len(a))
        if type(a) is not type(b) or len(a) != len(b) or (isinstance(a, dict) and a.keys() != b.keys()):
            return where or "shape"
        return next((found for k in keys if (found := same(a[k], b[k], f"{where}/{k}"))), "")
    return "" if a == b else where or "value"
