"""Which measurements directions.py makes: parts, variants, and how much is drawn for each."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

try:
    from evidence import direction_tools as tools
except ImportError:  # as a script: the folder of this file is on the path
    import direction_tools as tools

TABLES = {  # by part
    "oracle": ("oracle",),
    "ablation": ("ablation",),
    "pieces": ("pieces", "quality"),
    "classes": ("classes", "cosines"),
    "betas": ("betas", "betas_curves"),
    "baselines": ("baselines", "leakage", "curves"),
    "reach": ("reach", "carries", "agreement"),
    "distribution": ("distribution",),
    "levels": ("levels",),
    "horizon": ("horizon", "levels"),
}
PARTS = tuple(TABLES)
FACTORS = ("x", "y", "zoom", "brightness")
PIECES, SHARES = [1, 5, 25, 101], [0.05, 0.1, 0.25, 0.5, 1.0]
BETAS = (1.0, 4.0, 8.0, 16.0)
PLANTED = {"oracle": 0.7, "gan": (0.0, 0.7)}  # how closely the horizon follows y
HORIZON: dict = {"steps": 3000}  # of the GANs with a planted horizon: what changes in the preset of their size
WITHOUT_INSTRUMENT = ["ours", "linear walk", "random 0", "random 1", "random 2"]  # methods that know a factor's name
METHODS = [*WITHOUT_INSTRUMENT[:2], "closed form", "SeFa", "GANSpace", *WITHOUT_INSTRUMENT[2:]]

# What a variant of the learning changes, and what it sees by in place of a filter.
VARIANTS = {
    "filtered 1.5 px": ({}, ""),
    "squared error": ({"sigma": 0.0}, ""),
    "filtered 0.75 px": ({"sigma": 0.75 / 64}, ""),
    "filtered 3 px": ({"sigma": 3 / 64}, ""),
    "SSIM": ({}, "ssim"),
    "judge's features": ({}, "judge"),
    "LPIPS": ({}, "lpips"),
    "no ball": ({"norm": "free"}, ""),
    "direct": ({"start": "direct"}, ""),
    "direct, as many steps": ({"start": "direct"}, ""),  # at each target as a path has had at its end
    "one moment a coordinate": ({"moment": "coordinate"}, ""),
}
REFITS = {"fitted jointly": "joint", "fitted by ridge": "ridge"}  # to the first variant's trajectories

# How much is drawn: codes n and trajectories (batch), of the oracle and of a network, whose pictures cost more.
SCALES = {
    "quick": {
        "oracle": {"model": "oracle", "size": 64, "d": 40}, "seeds": (0, 1, 2, 3, 4), "vae_seeds": (0, 1, 2),
        "learning": {"batch": 50, "steps": 250}, "few": {"batch": 25, "levels": 5, "steps": 250},
        "gan": {"batch": 20, "levels": 3, "steps": 30}, "n": 200, "n_gan": 60, "n_ks": 500, "chosen": 30,
        "walking": {"steps": 300, "batch": 8},
    },
    "smoke": {
        "oracle": {"model": "oracle", "size": 32, "d": 8}, "seeds": (0, 1), "vae_seeds": (0,),
        "learning": {"batch": 10, "levels": 2, "steps": 20}, "few": {"batch": 8, "levels": 2, "steps": 10},
        "gan": {"batch": 4, "levels": 2, "steps": 4}, "n": 20, "n_gan": 6, "n_ks": 20, "chosen": 4,
        "walking": {"steps": 3, "batch": 2},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One measurement: a function of direction_parts.py and its arguments.

    needs  what must be shipped (folders under data/) or installed ("package lpips") for it
    """

    part: str
    words: str
    function: str
    args: dict
    needs: tuple[str, ...] = ()

    @property
    def optional(self) -> bool:
        """Whether it needs a package that does not come with the kit."""
        return any(need.startswith("package ") for need in self.needs)

    def lacks(self) -> tuple[str, ...]:
        """What of it is not there."""
        return tuple(need for need in self.needs if not _there(need))


def _there(need: str) -> bool:
    if need.startswith("package "):
        return importlib.util.find_spec(need.split()[1]) is not None
    return (tools.SHIPPED / need / "card.json").is_file()


def plan(preset: str, parts=PARTS) -> list[Task]:
    """The measurements of the parts, in the order of the tables. No seed was chosen."""
    s = SCALES[preset]
    learning, oracle, gan = s["learning"] | {"seed": 0}, s["oracle"] | {"seed": 0}, {"model": "gan"}
    side = oracle["size"]
    masks, judge = (f"judges/scenes-{{}}{tail}" for tail in ("-segmenter", ""))
    found: list[Task] = []

    def add(part: str, words: str, needs=(), **args) -> None:
        which, function = args.get("where", {}).get("model"), args.pop("function", part)
        shipped = (tools.GAN, tools.FOUND, masks.format(64)) if which == "gan" else ()
        label = f"{part}: {which}, {words}" if which else f"{part}: {words}"
        found.append(Task(part, label, f"{function}_rows", args, (*shipped, *needs)))

    for variant, changes in (("default", {}), ("coordinate", {"moment": "coordinate"}), ("tied", {})):
        for seed in s["seeds"]:
            where = s["oracle"] | {"seed": seed} | ({"tied": PLANTED["oracle"]} if variant == "tied" else {})
            for names in (("y",),) if variant == "tied" else tools.PAIRS:
                asked = s["learning"] | {"seed": seed} | changes
                words = f"{variant}, seed {seed}, {' and '.join(names)}"
                add("oracle", words, where=where, variant=variant, names=names, learning=asked, n=s["n"])

    for where, asked, names, n in (
        (oracle, s["few"], ("x", "zoom"), s["n"]),
        (gan, s["gan"], ("x",), s["n_gan"]),
    ):
        for variant, (changes, seen_by) in VARIANTS.items():
            if variant == "direct, as many steps":
                changes = changes | {"steps": asked["steps"] * asked["levels"]}
            needs = {"judge": (judge.format(side if where is oracle else 64),), "lpips": ("package lpips",)}
            shared = {"where": where, "variant": variant, "changes": changes, "seen_by": seen_by, "names": names}
            add("ablation", variant, needs.get(seen_by, ()), learning=asked, n=n,
                refits=REFITS if variant == next(iter(VARIANTS)) else {}, **shared)  # fmt: skip

    for where, n in ((oracle, s["n"]), (gan, s["n_gan"])):
        for name in FACTORS:
            shared = {"where": where, "name": name, "learning": learning, "n": n}
            add("pieces", name, pieces=PIECES, **shared)
            for how in ("mean", "ridge", "joint"):
                words = f"{name}, how {how}"
                add("pieces", words, function="quality", how=how, shares=SHARES, **(shared | {"n": n // 2}))

    add("classes", "all", where=gan, names=("x", "zoom"), learning=s["gan"], n=s["n_gan"])

    for seed in s["vae_seeds"]:
        for beta in BETAS:
            add("betas", f"beta {beta:g}, seed {seed}", beta=beta, seed=seed, preset=preset, data_options={"size": 32},
                names=("x", "y", "zoom"), learning=learning, n=s["n"])  # fmt: skip

    for where, n, methods in ((oracle, s["n"], WITHOUT_INSTRUMENT), (gan, s["n_gan"], METHODS)):
        needs = (judge.format(64),) if where is gan else ()
        shared = {"where": where, "learning": learning, "n": n}
        for name in FACTORS:
            ways = [m for m in methods if (m, name) != ("closed form", "brightness")]  # no map of cells gets brighter
            add("baselines", name, needs, name=name, methods=ways, walking=s["walking"], chosen=s["chosen"], **shared)
        add("baselines", "ours", needs, function="ours", **shared)

    for where, n in ((oracle, s["n_gan"]), (gan, s["n_gan"])):
        for name in FACTORS[:3]:
            needs = (masks.format(side),) if where is oracle else ()
            add("reach", name, needs, where=where, name=name, learning=learning, n=n)

    for where in (oracle, gan):
        for name in FACTORS:
            add("distribution", name, where=where, name=name, learning=learning, n=s["n_ks"])

    add("levels", "all", where=gan, learning=learning)

    for rho in PLANTED["gan"]:
        needs = (masks.format(32), judge.format(32))
        add("horizon", f"rho {rho:g}", needs, rho=rho, preset=preset, changes=HORIZON, names=("x", "y"),
            learning=learning, n=s["n"])  # fmt: skip
    return [task for task in found if task.part in parts]
