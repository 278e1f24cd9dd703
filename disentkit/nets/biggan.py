"""Networks of BigGAN: a generator that reads its latent level by level, and a projection discriminator.

Brock, Donahue, Simonyan 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", arXiv 1809.11096,
and its released code, ajbrock/BigGAN-PyTorch; pictures of 16, 32, 64 and 128 pixels in [-1, 1], L = log2(side) - 1
levels.

    G     chunk z1 -> linear -> map 4x4 of 16 ch channels; each of the L - 1 residual blocks doubles the side and reads
          its own chunk: [class embedding, chunk] -> gain and bias of its two conditional batch norms. Channels at
          side s: ch min(16, 128/s). Then batch norm, ReLU, conv 3x3, tanh
    D     residual blocks that halve the side down to 4, ch channels after the first, doubled by each, 8 ch at most, and
          one more that keeps it; ReLU, h = sum over places; logit = linear(h) + <embedding of the class, h>
    both  spectral norm of every linear layer and convolution (G's class embedding apart), orthogonal weights, zero
          biases, and self-attention on the maps of one side

Spectral norm divides a weight, written as a matrix (out, rest), by sigma = u' W v, its largest singular value as the
vectors u and v know it. They move by `power_iteration`, which the learner calls once per update, and never in a forward
pass: that changes nothing, and decoding the same code twice gives the same picture.

Two things are computed in another order than they are written there, with the same result: a 1x1 convolution
before the side is doubled or after it is halved, and a 3x3 convolution at twice the side, or before the mean of 2x2
places, as one 4x4 convolution with stride 2, which needs 4 multiplications where there were 9.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disentkit.errors import UserError

SIDES = (16, 32, 64, 128)


# ---- spectral norm


class Spectral:
    """What `Linear` and `Conv` share: `used()`, the weight divided by its largest singular value.

    With `spectral=False` the weight is used as it is: the moving average of a generator keeps weights already divided.
    """

    def _begin(self, spectral: bool) -> None:
        self.spectral = spectral
        if not spectral:
            return
        nn.init.orthogonal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        rows, columns = self._matrix().shape
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", torch.zeros(columns))
        self.iterate()  # enough: all singular values are 1

    def _matrix(self) -> Tensor:
        """The weight as a matrix (out, rest), a view where convolutions lie in channels-last order."""
        return self.weight.permute(0, 2, 3, 1).flatten(1) if self.weight.ndim == 4 else self.weight

    @torch.no_grad()
    def iterate(self) -> None:
        """One step of the power iteration: v = W'u / |W'u|, u = W v / |W v|."""
        W = self._matrix()
        self.v.copy_(F.normalize(torch.mv(W.T, self.u), dim=0))
        self.u.copy_(F.normalize(torch.mv(W, self.v), dim=0))

    def used(self) -> Tensor:
        """The weight that forward multiplies with; a gradient flows through sigma too."""
        if not self.spectral:
            return self.weight
        with torch.autocast(self.weight.device.type, enabled=False):  # sigma in float32
            sigma = torch.dot(self.u, torch.mv(self._matrix(), self.v))
            return self.weight / sigma


class Linear(Spectral, nn.Linear):
    """A spectrally normalised linear layer."""

    def __init__(self, last: int, out: int, bias: bool = True, spectral: bool = True):
        super().__init__(last, out, bias)
        self._begin(spectral)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.used(), self.bias)


class Conv(Spectral, nn.Conv2d):
    """A spectrally normalised convolution, 3x3 or 1x1; "up" first doubles the side, "down" halves it afterwards."""

    def __init__(
        self, last: int, out: int, kernel: int = 3, resize: str = "", bias: bool = True, spectral: bool = True
    ):
        super().__init__(last, out, kernel, padding=kernel // 2, bias=bias)
        self.resize = resize
        self._begin(spectral)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.used()
        if not self.resize:
            return F.conv2d(x, weight, self.bias, padding=self.padding)
        # Each place of the doubled map, or each of four in a mean, is met by two neighbours of the kernel at once.
        wide = F.pad(weight, (1, 1, 1, 1))
        wide = wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]  # (out, in, 4, 4)
        if self.resize == "up":
            return F.conv_transpose2d(x, wide.flip(2, 3).transpose(0, 1), self.bias, stride=2, padding=1)
        return F.conv2d(x, wide / 4, self.bias, stride=2, padding=1)


def power_iteration(net: nn.Module) -> None:
    """One step of the power iteration in every layer."""
    for layer in net.modules():
        if isinstance(layer, Spectral) and layer.spectral:
            layer.iterate()


def used_weights(net: nn.Module) -> dict[str, Tensor]:
    """The parameters of `net` by name, weights as they are used: divided by their largest singular value."""
    found = dict(net.named_parameters())
    spectral = {name: layer for name, layer in net.named_modules() if isinstance(layer, Spectral)}
    return found | {f"{name}.weight": layer.used() for name, layer in spectral.items()}


# ---- parts


class ConditionalNorm(nn.Module):
    """Batch norm whose gain, 1 + linear(y), and bias, linear(y), come from a condition y (N, d); no bias terms."""

    def __init__(self, channels: int, d: int, spectral: bool = True):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = Linear(d, channels, bias=False, spectral=spectral)
        self.bias = Linear(d, channels, bias=False, spectral=spectral)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = 1 + self.gain(y)[:, :, None, None], self.bias(y)[:, :, None, None]  # (N, C, 1, 1)
        return torch.addcmul(bias, self.norm(x), gain)


class Attention(nn.Module):
    """x + gamma o(g(x) softmax(theta(x)' phi(x))): every place asks all places, which are pooled by two. gamma = 0 at
    first. Zhang, Goodfellow, Metaxas, Odena 2019, "Self-Attention GANs", arXiv 1805.08318, as BigGAN has it."""

    def __init__(self, channels: int, spectral: bool = True):
        super().__init__()
        few, half = max(1, channels // 8), max(1, channels // 2)
        self.theta, self.phi = (Conv(channels, few, 1, bias=False, spectral=spectral) for _ in range(2))
        self.g = Conv(channels, half, 1, bias=False, spectral=spectral)
        self.o = Conv(half, channels, 1, bias=False, spectral=spectral)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        ask = self.theta(x).flatten(2)  # (N, C/8, hw)
        key, value = F.max_pool2d(self.phi(x), 2).flatten(2), F.max_pool2d(self.g(x), 2).flatten(2)  # (N, ., hw/4)
        share = (ask.transpose(1, 2) @ key).softmax(2)  # (N, hw, hw/4)
        seen = (value @ share.transpose(1, 2)).unflatten(2, x.shape[2:])  # (N, C/2, h, w)
        return x + self.gamma * self.o(seen)


class UpBlock(nn.Module):
    """Residual block of G: norm, ReLU, up, conv, norm, ReLU, conv; beside it up, conv 1x1."""

    def __init__(self, last: int, out: int, d: int, spectral: bool = True):
        super().__init__()
        self.norm1, self.norm2 = ConditionalNorm(last, d, spectral), ConditionalNorm(out, d, spectral)
        self.conv1 = Conv(last, out, resize="up", spectral=spectral)
        self.conv2 = Conv(out, out, spectral=spectral)
        self.skip = Conv(last, out, 1, spectral=spectral)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.conv1(self.norm1(x, y).relu())
        h = self.conv2(self.norm2(h, y).relu())
        return h + F.interpolate(self.skip(x), scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """Residual block of D: ReLU (not on the picture), conv, ReLU, conv, mean of 2x2; beside it conv 1x1, mean."""

    def __init__(self, last: int, out: int, first: bool = False, down: bool = True):
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = Conv(last, out)
        self.conv2 = Conv(out, out, resize="down" if down else "")
        self.skip = Conv(last, out, 1) if down or last != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        return h + self.skip(F.avg_pool2d(x, 2) if self.down else x)


# ---- the two players


def levels(image_shape: tuple[int, int, int]) -> int:
    """How many chunks G's latent has: one for the first layer and one per block. Raises UserError for other sizes."""
    _, height, width = image_shape
    if height != width or height not in SIDES:
        raise UserError(f"BigGAN draws square pictures of 16, 32, 64 or 128 pixels, not {height}x{width}")
    return height.bit_length() - 2


class Generator(nn.Module):
    """G: classes (N, K), one-hot, and a latent (N, L chunk) -> pictures (N, C, H, H) in (-1, 1).

    classes    K; 0 for none, and then the classes given are (N, 0)
    attention  the side of the map with self-attention; 0 for none
    """

    def __init__(
        self, image_shape: tuple[int, int, int], classes: int, chunk: int = 16, ch: int = 8, embed: int = 32,
        attention: int = 0, spectral: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.chunk, self.attention = chunk, attention
        sides = [4 * 2**i for i in range(levels(image_shape))]
        widths = [ch * min(16, 128 // side) for side in sides]
        d = chunk + (embed if classes else 0)
        self.embed = nn.Linear(classes, embed, bias=False) if classes else None
        self.first = Linear(chunk, 16 * widths[0], spectral=spectral)
        self.first_shape = (widths[0], 4, 4)
        self.blocks = nn.ModuleList(UpBlock(a, b, d, spectral) for a, b in zip(widths, widths[1:]))
        self.look = Attention(widths[sides.index(attention)], spectral) if _looks(attention, sides[1:]) else None
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = Conv(widths[-1], image_shape[0], spectral=spectral)
        if self.embed is not None:
            nn.init.orthogonal_(self.embed.weight)

    def forward(self, classes: Tensor, z: Tensor) -> Tensor:
        z1, *chunks = z.split(self.chunk, dim=1)  # (N, chunk) each
        x = self.first(z1).unflatten(1, self.first_shape)
        x = x.contiguous(memory_format=torch.channels_last)
        shared = [self.embed(classes)] if self.embed is not None else []
        for block, part in zip(self.blocks, chunks):
            x = block(x, torch.cat([*shared, part], dim=1))
            if x.shape[2] == self.attention:
                x = self.look(x)
        return self.last(self.norm(x).relu()).tanh()


class Discriminator(nn.Module):
    """D: pictures (N, C, H, H) in [-1, 1] and classes (N, K) -> logits (N,), high for real. K = 0: the classes are
    (N, 0), and the projection is left out."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, ch: int = 16, attention: int = 0):
        super().__init__()
        sides = [image_shape[1] // 2**i for i in range(1, levels(image_shape))]  # H/2 ... 4, after the blocks
        widths = [ch * min(8, 2**i) for i in range(len(sides) + 1)]
        self.attention = attention
        self.blocks = nn.ModuleList([DownBlock(image_shape[0], widths[0], first=True)])
        self.blocks += [DownBlock(a, b, down=i < len(sides)) for i, (a, b) in enumerate(zip(widths, widths[1:]), 1)]
        self.look = Attention(widths[sides.index(attention)]) if _looks(attention, sides[:-1]) else None
        self.linear = Linear(widths[-1], 1)
        self.embed = Linear(classes, widths[-1], bias=False) if classes else None

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        h = self.features(x)
        logit = self.linear(h).squeeze(1)
        return logit if self.embed is None else logit + (self.embed(classes) * h).sum(1)

    def features(self, x: Tensor) -> Tensor:
        """h, (N, F): the sum over places of what the last block sees."""
        for block in self.blocks:
            x = block(x)
            if x.shape[2] == self.attention:
                x = self.look(x)
        return x.relu().sum((2, 3), dtype=torch.float32)


def _looks(attention: int, sides: list[int]) -> bool:
    """True where there is attention; UserError where no map has that side."""
    if attention and attention not in sides:
        fits = ", ".join(map(str, sorted(sides)))
        raise UserError(f"attention is the side of a map, one of {fits}, or 0 for none; not {attention}")
    return bool(attention)
