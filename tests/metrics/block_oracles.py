"""Models whose blocks are known: a renderer behind codes laid out at will, and a judge that is never wrong."""

import torch
import torch.nn.functional as F
import toys

from disentkit.codes import Block, CodeSpace


class Sight:
    """Reads a picture as the nearest of all pictures of the grid."""

    def __init__(self, data):
        self.space = data.space
        self.grid = data.space.tuple_of(torch.arange(data.space.grid_size))  # (every tuple, K)
        self.pictures = data.render(data.space.from_grid(self.grid)).flatten(1)

    def read(self, x):
        return self.grid[torch.cdist(x.flatten(1), self.pictures).argmin(1)]


class Laid:
    """A perfect autoencoder of `toys.Dots` in blocks laid out at will: {"f1": ["kind", "x"], "f2": [], ...}.

    A block holds the one-hot vectors of its factors side by side, an empty one a constant. The decoder takes a factor
    from the first block that has it; further ones are copies that it never asks for.
    """

    def __init__(self, layout, data=None, order=None):
        self.data, self.layout = data or toys.Dots(), layout
        self.image_shape, space = self.data.image_shape, self.data.space
        self.sight = Sight(self.data)
        wide = {name: sum(len(space[f]) for f in factors) or 1 for name, factors in layout.items()}
        self.codes = CodeSpace(Block(name, "free", (size,)) for name, size in wide.items())

    def encode(self, x):
        index, space = self.sight.read(x), self.data.space
        vectors = {f.name: F.one_hot(index[:, k], len(f)).float() for k, f in enumerate(space)}
        parts = [torch.cat([vectors[f] for f in names], 1) if names else torch.ones(len(x), 1)
                 for names in self.layout.values()]  # fmt: skip
        return torch.cat(parts, dim=1)

    def decode(self, codes):
        found = {}
        for name, factors in self.layout.items():
            vectors = self.codes.read(codes, name).split([len(self.data.space[f]) for f in factors] or [1], dim=1)
            for f, vector in zip(factors, vectors):
                found.setdefault(f, vector.argmax(1))
        return self.data.render(self.data.space.from_grid(torch.stack([found[f] for f in self.data.space.names], 1)))


APART = {"f1": ["kind"], "f2": ["x"], "f3": ["y"], "f4": ["light"]}
SHORTCUT = {"f1": ["kind", "x", "y", "light"], "f2": [], "f3": []}
