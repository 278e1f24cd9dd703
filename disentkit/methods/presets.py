"""What the presets of the VAE family share: size, length, step size and widths by (preset, data set).

For the members that Kim & Mnih 2018 compare FactorVAE with. They are trained like the VAE of `methods/vae.py`, so that
only the objective differs; a method's file adds the weights of its own terms.
"""

from __future__ import annotations

from dataclasses import asdict

from disentkit.methods.vae import VAE

COMMON: dict[tuple[str, str], dict] = {
    pair: {name: value for name, value in asdict(settings).items() if name != "beta"}
    for pair, settings in VAE.PRESETS.items()
}

# How many pictures each set has, for estimators that must know. Any other number is the user's to give.
IMAGES = {
    "dsprites": 737_280, "shapes3d": 480_000, "mnist": 60_000, "digits": 1_797, "celeba": 202_599, "chairs": 86_366,
    "faces": 127_050, "characters": 384_000,
}  # fmt: skip
