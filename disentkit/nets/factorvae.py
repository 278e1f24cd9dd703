"""The networks of Kim & Mnih 2018: convolutional encoder and decoder, MLP discriminator.

They follow public reimplementations, since the paper's own appendix was not read again for this file: widths and
kernels are those of fjxmlzn/InfoGAN-CR and nicolasigor/FactorVAE. Where ports differ, this was taken: a ReLU after the
encoder's fully connected layer (nicolasigor leaves it linear), and six hidden layers before the discriminator's output
(google-research/disentanglement_lib; 1Konny/FactorVAE counts the output layer among the six).

All convolutions are 4x4 with stride 2 and padding 1, ReLU between layers, no batch norm; the decoder returns logits.
Channels at 64 pixels are 32, 32, 64, 64 down and 64, 32, 32, C up. Smaller pictures leave layers out from the middle
(the `quick` preset's 32 pixels: 32, 32, 64 and 32, 32, C), so the innermost feature map is 4x4x64 at every size.
"""

from __future__ import annotations

from torch import nn

CHANNELS = (32, 32, 64, 64)


def glorot(net: nn.Module) -> nn.Module:
    """Glorot-uniform weights and zero biases: our choice, see the method's docstring."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


def _channels(image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Channels of the layers from the picture down to the 4x4 map, each halving the side."""
    _, height, width = image_shape
    if height != width or height not in (8, 16, 32, 64):
        raise ValueError(f"these networks read square pictures of 8, 16, 32 or 64 pixels, not {height}x{width}")
    levels = height.bit_length() - 3
    return (*CHANNELS[: levels - 1], 64)


def encoder(image_shape: tuple[int, int, int], d: int, fc: int = 128) -> nn.Sequential:
    """Images (N, C, H, H) -> (N, 2d), mu and log sigma^2 side by side. fc: 128 for 2D Shapes, 256 for 3 channels."""
    layers: list[nn.Module] = []
    channels = image_shape[0]
    for out in _channels(image_shape):
        layers += [nn.Conv2d(channels, out, 4, 2, 1), nn.ReLU()]  # halves the side
        channels = out
    layers += [nn.Flatten(), nn.Linear(4 * 4 * 64, fc), nn.ReLU(), nn.Linear(fc, 2 * d)]
    return glorot(nn.Sequential(*layers))


def decoder(image_shape: tuple[int, int, int], d: int, fc: int = 128) -> nn.Sequential:
    """Codes (N, d) -> logits (N, C, H, H)."""
    layers: list[nn.Module] = [nn.Linear(d, fc), nn.ReLU(), nn.Linear(fc, 4 * 4 * 64), nn.ReLU()]
    layers += [nn.Unflatten(1, (64, 4, 4))]
    channels = 64
    for out in [*reversed(_channels(image_shape)[:-1]), image_shape[0]]:
        layers += [nn.ConvTranspose2d(channels, out, 4, 2, 1), nn.ReLU()]  # doubles the side
        channels = out
    return glorot(nn.Sequential(*layers[:-1]))  # the last layer's output are logits


def discriminator(d: int, width: int = 1000, layers: int = 6) -> nn.Sequential:
    """Codes (N, d) -> two logits (N, 2); class 0 = "from q(z)", class 1 = "from the product of its marginals".

    `layers` hidden layers of `width` units with leaky ReLU (slope 0.2), then the output layer: 5,018,002 weights at
    d = 10. Some ports count the output layer among the six.
    """
    sizes = [d, *[width] * layers]
    net: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:]):
        net += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
    return glorot(nn.Sequential(*net, nn.Linear(sizes[-1], 2)))
