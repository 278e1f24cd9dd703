"""Models of four factors that fill a quarter of the picture each, so that a test sees where every quarter came from."""

from __future__ import annotations

import torch

from disentkit.codes import Block, CodeSpace

FACTORS = ("background", "shape", "texture", "pose")
ONES = 6  # numbers of a factor in a quarter, each 32 times


def blocks(inferred: bool = True) -> CodeSpace:
    """The layout of FineGAN and MixNMatch."""
    return CodeSpace([
        Block("b", "onehot", (4,), inferred=inferred, picker="background"),
        Block("z_b", "gaussian", (2,), inferred=inferred, picker="background"),
        Block("p", "onehot", (3,), inferred=inferred, picker="shape"),
        Block("c", "onehot", (4,), inferred=inferred, picker="texture"),
        Block("z", "gaussian", (2,), inferred=inferred, picker="pose"),
    ])  # fmt: skip


def quarters(x: torch.Tensor) -> torch.Tensor:
    """The quarters (N, 4, 192) of pictures (N, 3, 16, 16), or of what a board shows (H, W, 3): by factor."""
    return x.reshape(len(x), 3, 2, 8, 2, 8).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 4, 192)


def picture(parts: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, 16, 16) of their quarters (N, 4, 192)."""
    return parts.reshape(-1, 2, 2, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, 16, 16)


class Generator:
    """Without an encoder. Counts; can be broken."""

    image_shape, codes = (3, 16, 16), blocks(inferred=False)
    names = (("b", "z_b"), ("p",), ("c",), ("z",))

    def __init__(self):
        self.encoded, self.decoded, self.staged, self.broken = [], 0, 0, None

    def decode(self, codes):
        self.decoded += 1
        if self.broken:
            raise RuntimeError(self.broken)
        return picture(torch.stack([self.quarter(codes, names) for names in self.names], 1))

    def quarter(self, codes, names):
        """The quarter (N, 192) that blocks fill."""
        values = torch.cat([self.codes.read(codes, name) for name in names], 1)
        values = torch.nn.functional.pad((values + 4) / 8, (0, ONES - values.shape[1]), value=0.5)
        return values.clamp(0, 1).repeat(1, 192 // ONES)

    def stages(self, codes):
        self.staged += 1
        child = self.decode(codes)
        self.decoded -= 1
        background, parent = child.clone(), child.clone()
        background[:, :, 8:], background[:, :, :, 8:], parent[:, :, 8:] = 0, 0, 0
        made = {
            "background": background,
            "parent_foreground": 1 - parent,
            "parent_mask": child[:, :1],
            "parent": parent,
        }
        return made | {"child_foreground": 1 - child, "child_mask": 1 - child[:, :1], "child": child}


class Encoded(Generator):
    """Code mode: what it decodes it reads back exactly."""

    codes = blocks()

    def encode(self, x):
        self.encoded.append(len(x))
        codes = torch.zeros(len(x), self.codes.size)
        for names, part in zip(self.names, quarters(x).unbind(1)):
            values, start = 8 * part.reshape(len(x), -1, ONES).mean(1) - 4, 0
            for name in names:
                size = self.codes[name].size
                codes = self.codes.write(codes, name, values[:, start : start + size])
                start += size
        return codes


class Feature(Encoded):
    """Feature mode: the quarters of shape and pose are a map that holds every pixel."""

    codes = CodeSpace([
        Block("b", "onehot", (4,), picker="background"),
        Block("z_b", "gaussian", (2,), picker="background"),
        Block("c", "onehot", (4,), picker="texture"),
        Block("F", "map", (6, 8, 8), picker="shape and pose"),
    ])  # fmt: skip
    names = (("b", "z_b"), (), ("c",), ())

    def decode(self, codes):
        parts = quarters(super().decode(codes)).clone()
        parts[:, 1::2] = self.codes.read(codes, "F").reshape(-1, 2, 192)
        return picture(parts)

    def quarter(self, codes, names):
        return super().quarter(codes, names) if names else torch.zeros(len(codes), 192)

    def encode(self, x):
        return self.codes.write(super().encode(x), "F", quarters(x)[:, 1::2].reshape(-1, 6, 8, 8))


def pictures(n: int = 5, seed: int = 0) -> torch.Tensor:
    """n pictures that code mode decodes to what they were, but for 8 bits."""
    model = Encoded()
    return model.decode(model.codes.prior(n, torch.Generator().manual_seed(seed)).clamp(-4, 4))
