"""Who stands on the turntable of `creatures`, and on what: ten toys as lists of solids, and ten patterned grounds.

Measures are those of a toy's own frame: it faces -y, x points right as seen from the front and z up from the ground.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from disentkit.data.creature_parts import Part, ball, box, horn, limb, pairs, rod

# ---- the toys


def _cat() -> list[Part]:
    fur, dark = 0xF2953A, 0xB85A18
    return [
        ball((0, 0.3, 0.42), (0.34, 0.5, 0.32), fur, dark, paint="stripes"),
        ball((0, -0.2, 0.92), (0.5, 0.44, 0.43), fur, 0xFFD9A8, paint="face"),
        limb((0, 0.7, 0.45), (0.1, 1.05, 0.75), 0.09, fur),
        limb((0.1, 0.98, 0.62), (0.12, 1.0, 1.3), 0.085, fur, dark, paint="tip"),
        *pairs(
            limb((0.2, -0.05, 0.5), (0.22, -0.12, -0.04), 0.12, fur),
            limb((0.2, 0.55, 0.5), (0.22, 0.62, -0.04), 0.12, fur),
            horn((0.27, -0.17, 1.2), (0.4, -0.17, 1.6), 0.19, dark, flat=0.5),
        ),
    ]


def _chick() -> list[Part]:
    down, beak = 0xFFD531, 0xF57C1F
    return [
        ball((0, 0.1, 0.55), (0.46, 0.5, 0.42), down),
        ball((0, -0.1, 1.08), (0.42, 0.4, 0.4), down, paint="face"),
        horn((0, -0.46, 1.04), (0, -0.72, 1.0), 0.11, beak, flat=0.7),
        horn((0, -0.02, 1.4), (0, 0.12, 1.66), 0.07, beak),
        limb((0, 0.5, 0.6), (0, 0.85, 0.85), 0.2, 0xE8B21A, flat=0.4),
        *pairs(
            limb((0.42, 0.0, 0.68), (0.62, 0.3, 0.42), 0.24, 0xE8B21A, flat=0.4),
            rod((0.18, 0.08, 0.25), (0.18, 0.08, 0.0), 0.05, beak),
            ball((0.18, -0.03, 0.03), (0.12, 0.2, 0.05), beak),
        ),
    ]


def _robot() -> list[Part]:
    steel, dark = 0x9FC4D6, 0x39586E
    return [
        box((0, 0.05, 0.5), (0.36, 0.28, 0.28), 0x4C8FB5, 0xF5C542, paint="panel"),
        box((0, 0.0, 1.12), (0.46, 0.36, 0.34), steel, 0xE3F2F8, paint="face"),
        rod((0, 0.05, 0.7), (0, 0.05, 0.85), 0.13, dark),
        rod((0, 0.0, 1.4), (0, 0.0, 1.66), 0.035, dark),
        ball((0, 0.0, 1.7), (0.1, 0.1, 0.1), 0xE5383B),
        box((0, 0.4, 0.55), (0.2, 0.1, 0.18), dark),
        *pairs(
            rod((0.46, 0.0, 1.12), (0.56, 0.0, 1.12), 0.14, 0xE5383B),
            rod((0.44, 0.05, 0.7), (0.5, -0.05, 0.3), 0.09, dark),
            ball((0.51, -0.07, 0.26), (0.12, 0.12, 0.12), steel),
            box((0.19, 0.02, 0.12), (0.14, 0.22, 0.12), dark),
        ),
    ]


def _dragon() -> list[Part]:
    skin, back = 0x58B84A, 0xF4B63F
    spines = [(0.08, 1.22), (0.3, 0.98), (0.52, 0.74), (0.72, 0.5)]
    return [
        ball((0, 0.06, 0.48), (0.38, 0.44, 0.44), skin, 0xE6F0A3, paint="belly"),
        ball((0, -0.26, 1.06), (0.44, 0.44, 0.4), skin, paint="face"),
        limb((0, 0.2, 0.36), (0, 0.94, 0.12), 0.22, skin),
        limb((0, 0.72, 0.16), (0, 1.2, 0.3), 0.11, skin),
        *[horn((0, y, z - 0.12), (0, y + 0.14, z + 0.22), 0.13, back, flat=0.4) for y, z in spines],
        *pairs(
            horn((0.26, -0.1, 1.34), (0.36, 0.06, 1.7), 0.09, back),
            limb((0.26, -0.22, 0.66), (0.4, -0.5, 0.5), 0.09, skin),
            limb((0.26, 0.08, 0.42), (0.3, -0.02, -0.06), 0.17, skin),
            ball((0.3, -0.16, 0.05), (0.13, 0.22, 0.08), back),
        ),
    ]


def _bus() -> list[Part]:
    paint, dark = 0x2F6FDB, 0x20242E
    return [
        box((0, 0.15, 0.66), (0.46, 0.76, 0.46), paint, 0xBFE6FF, paint="windows"),
        box((0, -0.62, 0.7), (0.455, 0.05, 0.41), 0x4C8BF0, 0xE4F1FB, paint="face"),
        box((0, 0.15, 1.15), (0.38, 0.66, 0.05), 0xF4F6FA),
        box((0, -0.66, 0.26), (0.44, 0.07, 0.07), dark),
        box((0, 0.92, 0.3), (0.44, 0.05, 0.08), dark),
        *pairs(
            rod((0.32, -0.26, 0.2), (0.52, -0.26, 0.2), 0.2, dark, 0xD5DAE2, paint="hub"),
            rod((0.32, 0.58, 0.2), (0.52, 0.58, 0.2), 0.2, dark, 0xD5DAE2, paint="hub"),
            ball((0.32, -0.74, 0.28), (0.09, 0.04, 0.07), 0xFFD84A),
            ball((0.34, 0.91, 0.46), (0.07, 0.04, 0.07), 0xE5383B),
        ),
    ]


def _rabbit() -> list[Part]:
    fur, pink = 0xECE7E1, 0xF29CB2
    return [
        ball((0, 0.22, 0.42), (0.36, 0.44, 0.4), fur),
        ball((0, -0.12, 0.9), (0.44, 0.4, 0.39), fur, paint="face"),
        ball((0, 0.68, 0.42), (0.17, 0.17, 0.17), 0xFFFFFF),
        *pairs(
            limb((0.14, -0.05, 1.15), (0.26, 0.02, 1.82), 0.13, fur, flat=0.5),
            limb((0.15, -0.11, 1.22), (0.25, -0.05, 1.72), 0.075, pink, flat=0.4),
            limb((0.16, -0.1, 0.55), (0.2, -0.26, 0.3), 0.1, fur),
            ball((0.26, 0.08, 0.08), (0.13, 0.3, 0.09), fur),
        ),
    ]


def _penguin() -> list[Part]:
    coat, beak = 0x2E3A50, 0xF59A23
    return [
        ball((0, 0.06, 0.52), (0.42, 0.4, 0.5), coat, 0xF7F7F2, paint="belly"),
        ball((0, 0.0, 1.14), (0.42, 0.4, 0.4), coat, 0xF7F7F2, paint="face"),
        horn((0, -0.36, 1.12), (0, -0.62, 1.08), 0.1, beak, flat=0.7),
        horn((0, 0.36, 0.2), (0, 0.62, 0.06), 0.14, coat, flat=0.6),
        *pairs(
            limb((0.36, 0.06, 0.86), (0.66, 0.06, 0.36), 0.12, coat, flat=1.4),
            ball((0.19, -0.2, 0.05), (0.16, 0.24, 0.07), beak),
        ),
    ]


def _bull() -> list[Part]:
    hide, ivory, dark = 0x9A5B33, 0xF3E7CC, 0x4A2A18
    return [
        ball((0, 0.35, 0.58), (0.42, 0.6, 0.38), hide, ivory, paint="patches"),
        ball((0, -0.3, 0.9), (0.42, 0.38, 0.42), hide, 0xE2B48C, paint="face"),
        limb((0, 0.92, 0.75), (0, 1.05, 0.2), 0.05, hide),
        ball((0, 1.05, 0.2), (0.09, 0.09, 0.13), dark),
        *pairs(
            limb((0.26, -0.25, 1.18), (0.66, -0.25, 1.3), 0.1, ivory),
            horn((0.6, -0.25, 1.22), (0.68, -0.3, 1.62), 0.095, ivory),
            limb((0.36, -0.22, 1.02), (0.66, -0.18, 0.94), 0.1, hide, flat=0.6),
            rod((0.24, 0.05, 0.4), (0.24, 0.02, 0.0), 0.12, hide, dark, paint="tip"),
            rod((0.24, 0.7, 0.4), (0.24, 0.73, 0.0), 0.12, hide, dark, paint="tip"),
        ),
    ]


def _ladybird() -> list[Part]:
    shell, dark = 0xE02B2B, 0x24202A
    return [
        ball((0, 0.24, 0.34), (0.6, 0.64, 0.6), shell, dark, paint="spots"),
        ball((0, -0.46, 0.56), (0.42, 0.36, 0.38), 0x4A4456, 0xE9C9A4, paint="face"),
        *pairs(
            rod((0.14, -0.42, 0.88), (0.3, -0.5, 1.26), 0.03, dark),
            ball((0.31, -0.51, 1.3), (0.09, 0.09, 0.09), 0xF5C542),
            *[limb((0.45, y, 0.2), (0.8, y - 0.08, 0.02), 0.09, dark) for y in (-0.2, 0.2, 0.56)],
        ),
    ]


def _octopus() -> list[Part]:
    skin, light = 0xB45BC9, 0xF3B5E6
    arms = []
    for k in range(4):
        angle = math.radians(22.5 + 45 * k) - math.pi / 2
        x, y = math.cos(angle), math.sin(angle)
        arms += [
            limb((0.2 * x, 0.1 + 0.2 * y, 0.5), (0.7 * x, 0.1 + 0.7 * y, 0.06), 0.15, skin),
            limb((0.6 * x, 0.1 + 0.6 * y, 0.06), (0.98 * x, 0.1 + 0.98 * y, 0.2), 0.09, skin, light, paint="tip"),
        ]
    return [
        ball((0, 0.06, 0.9), (0.5, 0.5, 0.56), skin, paint="face"),
        ball((0, 0.36, 1.3), (0.3, 0.3, 0.28), skin),
        ball((0.0, 0.55, 1.05), (0.14, 0.1, 0.14), light),
        ball((0.3, 0.42, 1.1), (0.1, 0.1, 0.1), light),
        ball((-0.26, 0.5, 0.78), (0.09, 0.1, 0.09), light),
        *pairs(*arms),
    ]


# By label, in the order of the factor: the unbalanced law shows the first five from all sides.
CREATURES: dict[str, list[Part]] = {
    "cat": _cat(), "chick": _chick(), "robot": _robot(), "dragon": _dragon(), "bus": _bus(),
    "rabbit": _rabbit(), "penguin": _penguin(), "bull": _bull(), "ladybird": _ladybird(), "octopus": _octopus(),
}  # fmt: skip


# ---- grounds: number of the colour at places (x, y) of the toy's own frame; it faces -y


def _mown(x: Tensor, y: Tensor) -> Tensor:
    return (x / 0.5 + 0.5).floor().remainder(3)


def _checks(x: Tensor, y: Tensor) -> Tensor:
    i, j = (x / 0.75 + 0.3).floor(), (y / 0.75 + 0.3).floor()
    return (i + j).remainder(2) + 2 * (i >= 1)


def _road(x: Tensor, y: Tensor) -> Tensor:
    off = (x - 0.45).abs()
    dash = (off < 0.07) & (y.remainder(1.0) < 0.55)
    return torch.where(dash | ((off - 1.12).abs() < 0.07), 2, torch.where(off < 1.12, 1, 0))


def _rings(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x - 0.95, y + 0.75) / 0.48).floor().remainder(2)


def _path(x: Tensor, y: Tensor) -> Tensor:
    off = (x - 0.2 - 0.6 * torch.sin(1.5 * y + 0.6)).abs()
    return torch.where(off < 0.42, 1, torch.where(off < 0.56, 2, 0))


def _beach(x: Tensor, y: Tensor) -> Tensor:
    wet = x - 0.5 - 0.16 * torch.sin(2.6 * y)
    return (wet > 0).float() + (wet > 0.2).float() + (wet > 0.95).float()


def _dots(x: Tensor, y: Tensor) -> Tensor:
    i = (x / 0.8).floor()
    radius = (0.24 + 0.09 * i).clamp(0.1, 0.36)
    return (torch.hypot(x - 0.8 * i - 0.4, (y / 0.8).remainder(1) * 0.8 - 0.4) < radius).float()


def _arrows(x: Tensor, y: Tensor) -> Tensor:
    return ((y - 0.8 * x.abs()) / 0.5).floor().remainder(2)


def _beams(x: Tensor, y: Tensor) -> Tensor:
    return (torch.atan2(y - 1.1, x + 1.0) * (8 / math.pi)).floor().remainder(2)


def _bricks(x: Tensor, y: Tensor) -> Tensor:
    row = (y / 0.65 + 0.4).floor()
    along = x / 1.3 + 0.5 * row.remainder(2)
    joint = ((y / 0.65 + 0.4).remainder(1) < 0.16) | (along.remainder(1) < 0.08)
    return torch.where(joint, 2, ((along.floor() + row).remainder(3) == 0).float())


# By label: the pattern, its colours, and the backdrop's at the top and at the horizon.
GROUNDS = {
    "mown field": (_mown, (0x7CC24A, 0x9AD65F, 0x5FA83C), 0x4FA3E3, 0xDDF1FB),
    "checked floor": (_checks, (0xF4EBDD, 0xC95B4B, 0xF4EBDD, 0x5B7FA8), 0x8C7BB5, 0xE6DDF0),
    "road": (_road, (0xB9C98A, 0x5A5D66, 0xF7F3E3), 0x86B7C9, 0xF6E9D2),
    "rings": (_rings, (0x1F8A93, 0x6FD0C8), 0xF0A27A, 0xFBE3CF),
    "winding path": (_path, (0x2F6B45, 0xE9CF9B, 0xA8854F), 0x37447E, 0xF3A683),
    "beach": (_beach, (0xF0D9A0, 0xFFFFFF, 0x4DB8D8, 0x2A7FB8), 0x59C3E0, 0xF7FBF3),
    "dots": (_dots, (0xF7C6D0, 0x8E4A9E), 0x9FE0C4, 0xF1FBF4),
    "arrows": (_arrows, (0xE8E4DA, 0x4B5563), 0x6B7C93, 0xD9DEE6),
    "sunbeams": (_beams, (0xF9C846, 0xE8663C), 0x1D1F4B, 0x7A4E86),
    "brick yard": (_bricks, (0xB5523B, 0x8F3B2E, 0xD9B59C), 0xC9CF7A, 0xF8F4D8),
}
