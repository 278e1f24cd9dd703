"""Continuous directions: Plumerault, Le Borgne, Hudelot 2020, "Controlling generative models with continuous factors of
variations", ICLR 2020, arXiv 2001.10238. Nothing is labelled; a transformation of images says what the factor is.

    1  z_0 from the prior, I_0 = G(z_0)
    2  targets T_t(I_0): the picture shifted, enlarged, brightened by t = t_1 ... t_N, to either side of 0
    3  z_n = argmin_z L(G(z), T_{t_n}(I_0)), |z| <= sqrt(d), begun at z_{n-1}; every target comes from I_0 itself
       L(I, J) = |(I - J) * k_sigma|^2 where the target is defined: a Gaussian takes away the high frequencies, whose
       phases no z can choose
    4  the worst tenth of the (z_0, z_n, t_n) is dropped
    5  t_n = g(<z_n, u>) - g(<z_0, u>), |u| = 1, g increasing and piecewise linear, is fitted to the rest
    6  an edit changes <z, u> and nothing else: `methods/steered.py`

(Steps 1 to 4: section 2.1, algorithm 1; step 5: section 2.2. Steps 4 and 5 stand in `factor_model.py`.) All
trajectories, both sides and all factors are optimised as one batch: the loss is a sum over them, so none feels others.

From the released code (AntoinePlumerault/Controlling-generative-models-with-continuous-factors-of-variations): Adam
with step 0.01, begun afresh at every target, the projection after every update, 50 updates per target, five targets to
either side, the class held, the rejected tenth, sigma = 3 pixels at 128. Ours: Adam has one second moment for each
trajectory (`row_adam.py` says why; `moment="coordinate"` is ordinary Adam); u is the mean of t (z_n - z_0), where the
released code fits a vector v, u = v / |v|, together with g (`how="joint"`); the tenth is taken for each t, for errors
may grow with |t| and pooling would then drop the far ones alone; a pair is kept as it was evaluated, not one update
later; the mask is applied before and after the blur; reach, sizes and presets. `paper` has the released code's moment
and, for x and y, its reach of +-0.5.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from tqdm import tqdm

from disentkit.errors import UserError, one_of
from disentkit.methods import changed_settings
from disentkit.methods.factor_model import Trajectories, explained, fit_direction
from disentkit.methods.learned import Learned
from disentkit.methods.reconstruction import LOSSES
from disentkit.methods.row_adam import RowAdam
from disentkit.methods.steered import (
    Direction,
    Steered,
    checked,
    draw,
    load_direction,
    make_direction,
    pictures,
    save_direction,
    steerable,
    still,
)
from disentkit.methods.transforms import Transform, check, transform
from disentkit.models import Learner, adam, device_of

__all__ = [
    "Direction", "Directions", "Learned", "Settings", "Steered", "Trajectories", "explained", "fit_direction", "learn",
    "load_direction", "make_direction", "save_direction",
]  # fmt: skip

CHOICES = {
    "start": ("recursive", "direct"),
    "norm": ("ball", "free"),
    "loss": tuple(LOSSES),
    "moment": ("trajectory", "coordinate"),
}


@dataclass(frozen=True)
class Settings:
    """`levels` targets to either side of 0, the farthest at `reach` times the transformation's own reach.

    transforms  names from `methods/transforms.py`, with commas between
    sigma       of the Gaussian, as a fraction of the picture's width; 0 is the squared error
    start       "recursive", each target from the solution of the one before, or "direct", each from z_0
    norm        "ball", |z| <= sqrt(d), or "free"
    loss        "filtered" (step 3) or "ssim"
    moment      Adam's second moment: one for each "trajectory", or one for each "coordinate" as in the paper's code
    label       the class of all z_0, counted from 1; 0 draws classes from the prior
    keep        share of trajectories kept at each t
    pieces      of g
    batch       trajectories for each factor and side
    steps       updates in all, the same number for each level
    size        the pictures' side in pixels
    """

    transforms: str = "x,y,zoom,brightness"
    reach: float = 1.0
    levels: int = 5
    sigma: float = 3 / 128
    start: str = "recursive"
    norm: str = "ball"
    loss: str = "filtered"
    moment: str = "trajectory"
    label: int = field(default=0, metadata={"least": 0})
    keep: float = 0.9
    pieces: int = 25
    lr: float = 0.01
    batch: int = 50
    steps: int = 250
    size: int = 64


ROWS = {"cpu": 64}  # of the batch at a time: the maps of 640 pictures fit no cache, and a step took 1.9 times as long
SMOKE = {"levels": 2, "batch": 10, "steps": 20, "size": 32}
SETS = ("scenes", "dsprites", "shapes3d", "characters", "creatures", "fonts", "folder")


class Directions(Learner):
    """One update of all trajectories a step. base: the run whose generator is inverted, or anything with `model`.

    transforms  of your own, in place of those that the settings name
    loss        (x, target, mask) -> (n,) in place of that of the settings
    z0          codes (batch, D) to begin at, in place of draws from the prior
    """

    reads = ()
    draws = 0  # no pictures are needed: the targets are made of the generator's own

    def __init__(
        self, settings: Settings, spec, base=None, transforms: Iterable[str | Transform] | None = None, loss=None,
        z0: Tensor | None = None,
    ):  # fmt: skip
        super().__init__(settings, spec, base)
        if base is None:
            raise UserError("directions belong to a trained generator: give base=RUN, a run's name or folder")
        s, model = settings, base.model
        model = model.base if isinstance(model, Steered) else model  # directions are found in what they steer
        for name, known in CHOICES.items():
            one_of(name, getattr(s, name), known)
        if not 0 < s.keep <= 1 or s.reach <= 0:
            raise UserError(f"keep must lie in 0 ... 1 and reach be above 0, not {s.keep} and {s.reach}")
        if not 0 <= s.sigma < 1:
            raise UserError(f"sigma is a fraction of the picture's width, 0 or more and below 1, not {s.sigma:g}")
        if s.steps < s.levels:
            raise UserError(f"{s.levels} levels need {s.levels} steps at least, not {s.steps}")
        names = [name.strip() for name in s.transforms.split(",")] if transforms is None else transforms
        asked = [each if isinstance(each, Transform) else transform(each) for each in names]
        called = [each.name for each in asked]
        if len(set(called)) < len(called) or not called:
            raise UserError(f"every factor once, and one at least, not: {', '.join(called) or 'none'}")
        if taken := [name for name in called if name in model.codes.names]:
            raise UserError(f"{type(model).__name__} has a block '{taken[0]}' already: rename the transformation")
        self.error = loss or LOSSES[s.loss](s.sigma * model.image_shape[-1])
        if spec is not None and tuple(spec.image_shape) != tuple(model.image_shape):
            raise UserError(f"the data are {tuple(spec.image_shape)}, the base run makes {tuple(model.image_shape)}")
        rng = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        z0 = draw(model, s.batch, rng) if z0 is None else model.codes.check(z0).detach().cpu()
        moves = steerable(model.codes)
        if not moves.any():
            raise UserError(f"no block of {type(model).__name__} can move: {model.codes}")
        if s.label:
            z0 = _labelled(model.codes, z0, s.label)
        self.limits(model.codes)
        self.register_buffer("moves", moves, persistent=False)
        z0 = self.project(z0)
        self.found = Learned(model, asked, s, z0)
        self.z = nn.Parameter(z0.repeat(2 * len(asked), 1))  # (R, D), R = factors x sides x trajectories
        self.register_buffer("safe", self.z.detach().clone())  # where each was last, at a picture without NaN
        self.register_buffer("x0", pictures(model, z0))  # (n, C, H, W)
        self._check_targets()
        self._targets: tuple[Tensor, Tensor] | None = None

    @property
    def model(self) -> Learned:
        return self.found

    def optimizers(self):
        n, few = len(self.x0), int(self.moves.sum())
        if n < few:  # said where a training begins, not where its run is opened
            warnings.warn(
                f"{n} trajectories for {few} latent dimensions: noise off the direction averages out slowly; "
                f"batch={few} or more is safer", stacklevel=2,
            )  # fmt: skip
        if self.settings.moment == "coordinate":
            return {"z": adam([self.z], self.settings.lr)}
        return {"z": RowAdam([self.z], self.settings.lr, numbers=few)}

    def limits(self, codes) -> None:
        """The ball of all gaussian positions, and the range (D,) of uniform ones."""
        low, high = torch.full((2, codes.size), torch.inf).mul(torch.tensor([[-1.0], [1.0]]))
        gaussian = torch.zeros(codes.size)
        for block in codes:
            if block.kind == "uniform":
                low[list(block.at)], high[list(block.at)] = block.low, block.high
            if block.kind == "gaussian" and not isinstance(block, Direction):
                gaussian[list(block.at)] = 1.0
        for name, value in {"low": low, "high": high, "gaussian": gaussian}.items():
            self.register_buffer(name, value, persistent=False)

    def project(self, z: Tensor) -> Tensor:
        """Codes (R, D) with |z| <= sqrt(d) over the d gaussian positions, and uniform ones in their range."""
        if self.settings.norm == "ball":
            length = (z * self.gaussian).norm(dim=1, keepdim=True)
            shrink = (self.gaussian.sum().sqrt() / length.clamp(min=1e-12)).clamp(max=1)
            z = torch.where(self.gaussian > 0, z * shrink, z)
        return z.clamp(self.low, self.high)

    def step(self, opt):
        level, first = self.level()
        self.begin(opt["z"], first)
        target, mask = (every.index_select(0, level)[0] for every in self.targets())
        before = self.z.detach().clone()
        opt["z"].zero_grad()
        some = ROWS.get(before.device.type, len(before))
        parts = zip(self.z.split(some), target.split(some), mask.split(some))
        errors = torch.cat([self.follow(*part) for part in parts])  # (R,)
        whole = errors.isfinite() & (self.z.grad.isfinite() | ~self.moves).all(1)  # (R,)
        self.record(level, before, errors, whole)
        self.z.grad.copy_(torch.where(self.moves & whole[:, None], self.z.grad, 0.0))
        opt["z"].step()
        with torch.no_grad():
            moved = self.project(self.z)
            self.safe.copy_(torch.where(whole[:, None], before, self.safe))
            self.z.copy_(torch.where(whole[:, None] & moved.isfinite().all(1, keepdim=True), moved, self.safe))
        count = whole.sum()
        return {"error": errors.where(whole, 0.0).sum() / count, "broken": len(errors) - count.float()}

    def follow(self, z: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The errors (r,) of some rows, whose gradient joins that of the codes."""
        errors = self.error(self.found.decode(z), target, mask)
        if not errors.requires_grad:
            raise UserError(f"{type(self.found.base).__name__} decodes without gradients: no code can be followed")
        errors.sum().backward()
        return errors.detach()

    def level(self) -> tuple[Tensor, Tensor]:
        """Which target is due, (1,), and whether this step is the first at it."""
        s = self.settings
        now, before = (((self.t + k) * s.levels / s.steps + 1e-4).floor() for k in (0, -1))
        return now.long().clamp(0, s.levels - 1).reshape(1), now != before

    def begin(self, opt: torch.optim.Optimizer, first: Tensor) -> None:
        """At the first step of a target Adam forgets; with start="direct" the codes go back to z_0."""
        for state in opt.state.values():
            for value in state.values():
                value.masked_fill_(first, 0.0)  # not 0 times infinity
        if self.settings.start == "direct":
            with torch.no_grad():
                again = self.found.z0.repeat(len(self.z) // len(self.found.z0), 1)
                self.z.copy_(torch.where(first, again, self.z))

    def record(self, level: Tensor, z: Tensor, errors: Tensor, whole: Tensor) -> None:
        """Keep codes (R, D) and their errors (R,) where they are `whole`: the last such pair at each target stays."""
        for kept, value, good in ((self.found.paths, z, whole[:, None]), (self.found.errors, errors, whole)):
            kept.index_copy_(0, level, torch.where(good, value, kept.index_select(0, level)[0])[None])
        self.found.forget()

    def targets(self) -> tuple[Tensor, Tensor]:
        """All targets (levels, R, C, H, W) and where they are defined (levels, R, 1, H, W), made once."""
        if self._targets is None:
            every = self.found.targets_t()
            levels = [self._targets_at(t) for t in every]
            self._targets = tuple(torch.stack(part) for part in zip(*levels))
        return self._targets

    def _targets_at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        made = []
        for each, sides in zip(self.found.transforms, t):  # (2,)
            for value in sides.tolist():
                made.append(each(self.x0, torch.full((len(self.x0),), value, device=self.x0.device)))
        return tuple(torch.cat(part) for part in zip(*made))

    def _check_targets(self) -> None:
        """Try the farthest targets of one picture; raises UserError where nothing of one is defined."""
        whole = self.x0[self.x0.flatten(1).isfinite().all(1)][:1].cpu()
        for each, sides in zip(self.found.transforms, self.found.targets_t()[-1]):
            for value in sides:
                try:
                    check(each, whole, value.reshape(1))
                    if not value:
                        raise ValueError(
                            f"{each.name} moves no whole pixel at reach={self.settings.reach:g}: take more"
                        )
                except ValueError as error:
                    raise UserError(str(error)) from None

    def preview(self, batch):
        """Starts, the farthest targets of one factor and side, and where they have been followed to."""
        n, first = min(len(batch["x"]), len(self.x0)), len(self.x0)  # of the first factor, the positive side
        here = slice(first, first + n)
        far, found = self.targets()[0][-1, here], self.found.decode(self.found.paths[-1, here])
        return {"G(z0)": self.x0[:n], f"target of {self.found.transforms[0].name}": far, "found": found}

    PRESETS = {
        **{("paper", data): Settings(reach=2.0, moment="coordinate") for data in SETS},
        # Of a GAN's picture not everything can follow; with more steps, codes wander off to follow it all the same.
        **{("course", data): Settings(batch=100, steps=50) for data in SETS},
        **{("quick", data): Settings(batch=64, size=32) for data in SETS},
        **{("smoke", data): Settings(**SMOKE) for data in SETS},
    }


def _labelled(codes, z0: Tensor, label: int) -> Tensor:
    """z0 with every code in the given class, counted from 1."""
    block = next((block for block in codes if block.kind == "onehot"), None)
    if block is None or label > block.size:
        has = "no classes" if block is None else f"{block.size} classes"
        raise UserError(f"label={label}, but the generator has {has}; 0 draws them from the prior")
    return block.write(z0, torch.eye(block.size)[label - 1])


def learn(
    model, transforms: str | Transform | Iterable[str | Transform] = ("x", "y", "zoom", "brightness"), *, seed: int = 0,
    loss: str | Callable[[Tensor, Tensor, Tensor], Tensor] = "filtered", z0: Tensor | None = None, bar: bool = True,
    **settings,
) -> Learned:  # fmt: skip
    """Directions of any model with `codes`, `image_shape` and `decode`; what `Directions` does, without a run.

    transforms  names, or transformations of your own
    loss        "filtered", "ssim", or (x, target, mask) -> (n,) of your own, one error per picture
    z0          codes (n, D) to begin at; left out, `batch` draws from the prior
    bar         show the progress line
    settings    those of `Settings`

    Raises UserError for settings and models that cannot be. Warns where there are fewer trajectories than latent
    dimensions, and where the generator gave NaN: those trajectories are left out, the others are kept.
    """
    wanted = transforms.split(",") if isinstance(transforms, str) else transforms
    wanted = [wanted] if isinstance(wanted, Transform) else [w.strip() if isinstance(w, str) else w for w in wanted]
    checked(model)
    settings = {"size": model.image_shape[-1]} | ({} if z0 is None else {"batch": len(z0)}) | settings
    names = ",".join(each if isinstance(each, str) else each.name for each in wanted)
    own = None if isinstance(loss, str) else loss
    s = changed_settings("directions", Settings(transforms=names), settings | ({} if own else {"loss": loss}))
    rng_state = torch.random.get_rng_state()
    try:
        torch.random.default_generator.manual_seed(seed)
        learner = Directions(s, None, SimpleNamespace(model=model), wanted, own, z0).to(device_of(model))
    finally:
        torch.random.set_rng_state(rng_state)
    opt = learner.optimizers()
    with still(learner.found.base), torch.enable_grad():
        for t in tqdm(range(s.steps), unit="step", mininterval=1.0, dynamic_ncols=True, disable=not bar):
            learner.t.fill_(t)
            learner.step(opt)
    found = learner.model.eval()
    broken = int((~found.errors[-1].isfinite()).sum())
    if broken:
        of = found.errors[-1].numel()
        warnings.warn(f"the generator gave NaN on {broken} of {of} trajectories; they are left out", stacklevel=2)
    return found
