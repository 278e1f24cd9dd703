"""The methods: one file per paper or family, each a frozen `Settings`, its `PRESETS` and a learner."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys

from disentkit.errors import UserError, finite, one_of, whole

MOST = 10**9  # of any whole number in the settings

# name -> (module, learner class); a new method needs its file and one line here.
METHODS = {
    "vae": ("disentkit.methods.vae", "VAE"),
    "betavae": ("disentkit.methods.vae", "BetaVAE"),
    "factorvae": ("disentkit.methods.factorvae", "FactorVAE"),
    "annealedvae": ("disentkit.methods.annealed", "AnnealedVAE"),
    "betatcvae": ("disentkit.methods.betatcvae", "BetaTCVAE"),
    "dipvae1": ("disentkit.methods.dipvae", "DIPVAE1"),
    "dipvae2": ("disentkit.methods.dipvae", "DIPVAE2"),
    "aae": ("disentkit.methods.aae", "AAE"),
    "minibatchtc": ("disentkit.methods.minibatch_tc", "MinibatchTC"),
    "infogan": ("disentkit.methods.infogan", "InfoGAN"),
    "mix": ("disentkit.methods.mix", "MIX"),
    "gzsnet": ("disentkit.methods.gzsnet", "GZSNet"),
    "aeds": ("disentkit.methods.aeds", "AEDS"),
    "infowgan": ("disentkit.methods.infowgan_gp", "InfoWGAN"),
    "stargan": ("disentkit.methods.stargan", "StarGAN"),
    "elegant": ("disentkit.methods.elegant", "ELEGANT"),
    "biggan": ("disentkit.methods.biggan", "BigGAN"),
    "directions": ("disentkit.methods.directions", "Directions"),
    "finegan": ("disentkit.methods.finegan", "FineGAN"),
    "finegan_hard": ("disentkit.methods.hard_negatives", "HardNegatives"),
    "mixnmatch": ("disentkit.methods.mixnmatch", "MixNMatch"),
    "mixnmatch_feature": ("disentkit.methods.mixnmatch_feature", "MixNMatchFeature"),
}


def learner_class(name: str) -> type:
    """The learner class of a method's name; raises UserError for an unknown one."""
    module, cls = METHODS[one_of("method", name, METHODS)]
    return getattr(importlib.import_module(module), cls)


def settings_class(method: str) -> type:
    """The frozen dataclass `Settings` that stands in the method's file."""
    return sys.modules[learner_class(method).__module__].Settings


def settings_for(method: str, data: str, preset: str):
    """The settings of a preset on a data set; raises UserError for unknown methods, presets and pairs."""
    presets = learner_class(method).PRESETS
    one_of("preset", preset, dict.fromkeys(p for p, _ in presets))
    if (preset, data) not in presets:
        pairs = ", ".join(f"{p}/{d}" for p, d in presets)
        boxed = "box" in learner_class(method).reads
        needs = "; its background stage needs boxes, which 'emblems' and 'boxed' have" if boxed else ""
        raise UserError(
            f"{method} has no preset '{preset}' for data '{data}'; it has {pairs}{needs}. Or give your own settings=."
        )
    return presets[preset, data]


def changed_settings(method: str, settings, changes: dict):
    """The settings with changes; raises UserError for an unknown one, and for a value of the wrong type or range."""
    known = [f.name for f in dataclasses.fields(settings)]
    for key in changes:
        if key not in known:
            raise UserError(f"{method} has no setting '{key}'; it has {', '.join(known)}")
    settings = dataclasses.replace(settings, **changes)
    for setting in dataclasses.fields(settings):
        value, what = getattr(settings, setting.name), f"setting {setting.name} of {method}"
        if setting.type in ("int", int):
            if whole(what, value, setting.metadata.get("least", 1)) > MOST:
                raise UserError(f"{what} can be {MOST:,} at most, not {value}")
        elif setting.type in ("float", float):
            finite(what, value, 0 if setting.name.startswith("lr") else -math.inf)
    return settings
