"""What mixnmatch.py trains: seeds, variants of MixNMatch, and the versions of the code that they belong to."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field, replace

try:
    from evidence import figures
except ImportError:  # as a script: the folder of this file is on the path
    import figures

from disentkit.methods import METHODS, settings_for

evidence = figures.evidence
DATA, DATA_OPTIONS = "emblems", {"few": True}  # 4 backgrounds, 4 shapes, 8 textures
CODES = {"parents": 4, "children": 8}  # as many as the data have; {} takes the preset's
SEEDS = (0, 1, 2)
METHOD_OF = {"MixNMatch": "mixnmatch", "FineGAN": "finegan"}  # name in the tables -> method
PARTS = ("quick", "variants", "shipped")
LAM_REC = 10.0  # of the reconstruction that stands in for the critics


@dataclass(frozen=True)
class Trial:
    """One training: its name in the tables, its method, the settings and data options that it changes, its seed."""

    label: str
    method: str = "mixnmatch"
    changes: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    seed: int = 0

    @property
    def words(self) -> str:
        return f"{self.label}, seed {self.seed}"

    @property
    def data_options(self) -> dict:
        return DATA_OPTIONS | self.options

    def settings(self, preset: str):
        return replace(settings_for(self.method, DATA, preset), **self.changes)


def trials(preset: str, parts=PARTS) -> list[Trial]:
    """The trainings of the parts, in the order of the tables. No seed was chosen.

    "full" of the variants is MixNMatch of the seeds, so each of these trainings is made once.
    """
    found = []
    if "quick" in parts:
        pairs = [(label, seed) for seed in SEEDS for label in METHOD_OF]  # side by side: the same machine
        found += [Trial(label, METHOD_OF[label], CODES, seed=seed) for label, seed in pairs]
    if "variants" in parts:
        found += variants(preset)
    return found


def variants(preset: str) -> list[Trial]:
    """MixNMatch, and with one thing changed; what the preset is already is left out.

    The whole method has all seeds, which says how far seeds differ; the others the first one.
    """
    whole = [Trial("full", changes=CODES, seed=seed) for seed in SEEDS]
    changes = {
        "one joint critic": {"critics": "one"},
        "no critics": {"critics": "none"},
        "no relaxed prediction": {"lam_pred": 0.0},
        "prediction with tied codes": {"pred": "tied"},
        "reconstruction, no critics": {"critics": "none", "lam_rec": LAM_REC},
        "no auxiliary loss": {"lam_aux": 0.0},
        "boxes ignored": {"boxes": False},
        "log form": {"pair": "log"},
        "masks left alone": {"lam_area": 0.0, "lam_sharp": 0.0},
        "parents in colour": {"grey": False},
        "nothing of ours": {"lam_area": 0.0, "lam_sharp": 0.0, "grey": False, "cosine": False},  # as in both papers
    }
    found = [Trial(label, changes=CODES | change) for label, change in changes.items()]
    found += [Trial("boxes of a segmenter", changes=CODES, options={"boxes": "segmenter"})]
    usual = whole[0].settings(preset)
    return whole + [t for t in found if t.options or t.settings(preset) != usual]


def training_version(trial: Trial, preset: str, *scored: str) -> str:
    """Twelve hex digits for code, settings and data that a trial's training depends on, and the files `scored`."""
    module = METHODS[trial.method][0].removeprefix("disentkit.").replace(".", "/") + ".py"
    alone = ["data/views.py"]  # no file imports it, the workbench does
    if trial.data_options.get("boxes") == "segmenter":
        alone.append("segmenter.py")
    code = code_behind(module, f"data/{DATA}.py", *scored), [code_of(file) for file in alone]
    return hashed(code, evidence.settings_hash(trial.settings(preset)), sorted(trial.data_options.items()))


def hashed(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@functools.cache
def code_of(file: str):
    return evidence.code((evidence.ROOT / "disentkit" / file).read_text())


@functools.cache
def code_behind(*files: str) -> str:
    """A hash of files and of all that they import."""
    return hashed([code_of(file) for file in figures.files_behind(*files)])
