"""The model of `directions.py`: a generator with the directions that its trajectories give, kept with them.

What a run saves are the trajectories; u and g are fitted to them when they are first asked for, so that they can be
looked at, filtered and fitted anew in other ways.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from disentkit.methods.factor_model import Pointless, Trajectories, fit_direction
from disentkit.methods.steered import Direction, Steered
from disentkit.methods.transforms import Transform, snap


class Learned(Steered):
    """A generator with directions fitted to trajectories, which are kept: its weights are they and nothing else.

    z0 (n, D), paths (levels, R, D) and errors (levels, R): a row for each of F factors, two sides of 0, n trajectories.
    """

    def __init__(self, model, transforms: list[Transform], s, z0: Tensor):
        super().__init__(model)
        self.transforms, self.settings = transforms, s
        rows = 2 * len(transforms)
        self.register_buffer("z0", z0)
        self.register_buffer("paths", z0.repeat(rows, 1).repeat(s.levels, 1, 1))
        self.register_buffer("errors", torch.full((s.levels, rows * len(z0)), torch.inf))
        self._fitted: dict[str, Direction] | None = None

    def targets_t(self) -> Tensor:
        """The t of every target, (levels, F, 2), negative side first, as the transformation really does it."""
        s, size = self.settings, self.image_shape
        shares = [level / s.levels * s.reach for level in range(1, s.levels + 1)]
        far = [
            [[snap(e, sign * share * e.reach, size) for sign in (-1, 1)] for e in self.transforms] for share in shares
        ]
        return torch.tensor(far, dtype=torch.float32)

    @property
    def trajectories(self) -> dict[str, Trajectories]:
        """The trajectories of each factor, on the CPU."""
        sides, found = (len(self.paths), len(self.transforms), 2, len(self.z0)), {}
        every = self.targets_t(), self.paths.cpu().unflatten(1, sides[1:]), self.errors.cpu().reshape(sides)
        for f, each in enumerate(self.transforms):
            t, z, errors = (torch.cat([values[:, f, 0].flip(0), values[:, f, 1]]) for values in every)  # ascending in t
            found[each.name] = Trajectories(each.name, each.unit, self.z0.cpu(), z, t, errors)
        return found

    @property
    def directions(self) -> dict[str, Direction]:
        """The directions by name, fitted when they are first asked for."""
        if self._fitted is None:
            self._fitted = self.refit().directions
        return self._fitted

    def refit(self, **how) -> Steered:
        """The same generator with directions fitted anew to the same trajectories; options as in `fit_direction`.

        A factor whose trajectories point nowhere is left out, with a warning that says why.
        """
        how, fitted = {"pieces": self.settings.pieces, "keep": self.settings.keep} | how, []
        for found in self.trajectories.values():
            try:
                fitted.append(fit_direction(found, **how).under(self.base))
            except Pointless as error:
                warnings.warn(f"{error}; it is left out", stacklevel=2)
        return Steered(self.base, fitted)

    def train(self, mode: bool = True) -> Learned:
        """As any module; what was fitted while it was training is forgotten."""
        self.forget()
        return super().train(mode)

    def forget(self) -> None:
        """Fit anew at the next question: the trajectories have changed."""
        self._fitted = None

    def load_state_dict(self, *args, **options):
        self.forget()
        return super().load_state_dict(*args, **options)
