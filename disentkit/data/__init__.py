"""Data sets by name: `load`, `complete`, `options_of`, `names`, `describe`, `fetch`.

`load` imports the one module it needs, so importing this package stays fast. The classes for data of your own
(`ArrayData`, `Renderer`, `Factor`, `FactorSpace`, laws) are in `data.base`, `data.factors` and `data.laws`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disentkit.errors import UserError, one_of
from disentkit.places import home

if TYPE_CHECKING:
    from disentkit.data.base import Data

# A row each: load and fetch are "module:function" (fetch "" where there is nothing to fetch), the rest is for people.
_SETS = {
    "dsprites": {
        "load": "disentkit.data.dsprites:load",
        "fetch": "disentkit.data.dsprites:fetch",
        "factors": "shape 3, scale 6, orientation 40, x 32, y 32",
        "images": "737,280",
        "size": "64x64 grey, also 32 and 16",
        "licence": "Apache-2.0",
        "download": "none; real file 26 MB",
        "note": "drawn from its geometry, any value between grid points; source=FILE reads the real pictures (3 GB)",
    },
    "digits": {
        "load": "disentkit.data.digits:load_digits",
        "fetch": "",
        "factors": "digit 10",
        "images": "1,797",
        "size": "8x8 grey, enlarged to 32 or any size",
        "licence": "CC BY 4.0 (UCI)",
        "download": "none",
        "note": "real handwriting, comes with scikit-learn",
    },
    "mnist": {
        "load": "disentkit.data.digits:load_mnist",
        "fetch": "disentkit.data.digits:fetch_mnist",
        "factors": "digit 10",
        "images": "60,000 and 10,000",
        "size": "28x28 grey, or 32x32 with a border",
        "licence": "CC BY-SA 3.0",
        "download": "12 MB",
        "note": "split='train' or 'test'; source=FOLDER where the files lie elsewhere",
    },
    "folder": {
        "load": "disentkit.data.folder:load",
        "fetch": "",
        "factors": "those of a table factors.csv in it, or none",
        "images": "yours",
        "size": "any, colour or grey",
        "licence": "yours",
        "download": "none",
        "note": "path=FOLDER of your own pictures",
    },
    "celeba": {
        "load": "disentkit.data.celeba:load",
        "fetch": "disentkit.data.celeba:fetch",
        "factors": "40 attributes of 2, where their list is there",
        "images": "202,599",
        "size": "any, colour or grey; the originals are 178x218",
        "licence": "non-commercial research",
        "download": "by hand",
        "note": "photographs of faces; path=FOLDER around img_align_celeba/, split='train', 'valid', 'test' or 'all'",
    },
    "chairs": {
        "load": "disentkit.data.chairs:load",
        "fetch": "disentkit.data.chairs:fetch",
        "factors": "none",
        "images": "86,366",
        "size": "any, colour or grey",
        "licence": "none stated",
        "download": "by hand",
        "note": "1,393 chairs from 62 sides; path=FOLDER around rendered_chairs/",
    },
    "faces": {
        "load": "disentkit.data.faces:load",
        "fetch": "disentkit.data.faces:fetch",
        "factors": "identity 50, azimuth 21, elevation 11, light 11, or those of your own pictures",
        "images": "127,050, or yours",
        "size": "any, grey",
        "licence": "the face model's, its pictures cannot be handed on",
        "download": "none: you render them",
        "note": "path=FILE of the array of all renderings, or a FOLDER of pictures",
    },
    "shapes3d": {
        "load": "disentkit.data.shapes3d:load",
        "fetch": "disentkit.data.shapes3d_file:fetch",
        "factors": "floor_hue 10, wall_hue 10, object_hue 10, scale 8, shape 4, orientation 15",
        "images": "480,000",
        "size": "64x64 colour, also 32",
        "licence": "Apache-2.0",
        "download": "none; real file 268 MB",
        "note": "drawn by casting rays, any value between grid points; source=FILE reads the real pictures (6 GB)",
    },
    "characters": {
        "load": "disentkit.data.characters:load",
        "fetch": "",
        "factors": "body 4, hair 6, top 5, trousers 5, item 5, pose 4, direction 4, hue 8",
        "images": "384,000",
        "size": "32x32 colour, also 48 and 64",
        "licence": "the kit's own",
        "download": "none",
        "note": "game characters drawn from the kit's own geometry, any hue between grid points",
    },
    "creatures": {
        "load": "disentkit.data.creatures:load",
        "fetch": "",
        "factors": "identity 10, pose 8, background 10",
        "images": "800, or 4,000 with expression",
        "size": "64x64 colour, also 32 and 128",
        "licence": "the kit's own",
        "download": "none",
        "note": "toys on a turntable, whose ground turns with them; expression=true adds 5 faces, held_out=0.2 a share",
    },
    "scenes": {
        "load": "disentkit.data.scenes:load",
        "fetch": "",
        "factors": "shape 4, x 11, y 11, scale 11, hue 24, background 4, horizon 9, light 10, grain 32",
        "images": "1,471,979,520",
        "size": "64x64 colour, also 32 and 128",
        "licence": "the kit's own",
        "download": "none",
        "note": "an object before sky and ground, for directions; rho=0.7 ties the horizon to the object's height",
    },
    "emblems": {
        "load": "disentkit.data.emblems:load",
        "fetch": "",
        "factors": "background 10, shape 5, texture 20, rotation 9, aspect 7, x 7, y 7, scale 7, phase 12, pitch 8, "
        "tint 5",
        "images": "10,372,320,000",
        "size": "64x64 colour, also 32 and 128",
        "licence": "the kit's own",
        "download": "none",
        "note": "an object on a pattern, with its box; rho=0.75 ties patterns to textures, tree=false, few=true",
    },
    "fonts": {
        "load": "disentkit.data.fonts:load",
        "fetch": "",
        "factors": "letter 52, size 3, colour 10, background 10, font 21",
        "images": "294,840",
        "size": "64x64 colour, also 32 and 128",
        "licence": "free (DejaVu, STIX, BaKoMa)",
        "download": "none",
        "note": "letters; split='test'; faces=FOLDER of your own; extra=position,rotation,texture; words=true",
    },
    "fonts_folder": {
        "load": "disentkit.data.fonts_folder:load",
        "fetch": "disentkit.data.fonts_folder:fetch",
        "factors": "letter 52, size 3, colour 10, background 10, font about 100",
        "images": "1,404,000 with 100 fonts, or yours",
        "size": "128x128 colour, or any",
        "licence": "none stated",
        "download": "by hand",
        "note": "the published Fonts set, or an export in its layout; path=FOLDER, size=none as stored, most=N of them",
    },
    "ilab": {
        "load": "disentkit.data.ilab:load",
        "fetch": "disentkit.data.ilab:fetch",
        "factors": "identity or category, background, pose 6",
        "images": "those of iLab-6pose, or yours",
        "size": "any, colour",
        "licence": "none stated",
        "download": "by hand",
        "note": "toy vehicles on a turntable; path=FOLDER, cameras=c00, poses=r01,r02 or all, by=identity or category",
    },
    "rafd": {
        "load": "disentkit.data.rafd:load",
        "fetch": "disentkit.data.rafd:fetch",
        "factors": "identity 67, expression 5 (of 8), pose 5",
        "images": "1,675 of 8,040",
        "size": "any, colour; the originals are 681x1024",
        "licence": "for researchers, on request",
        "download": "by hand",
        "note": "photographs of faces; path=FOLDER, gaze=frontal, left, right or all, expressions=happy,sad or all",
    },
    "lpc": {
        "load": "disentkit.data.lpc:load",
        "fetch": "disentkit.data.lpc:fetch",
        "factors": "body 6, bottomwear 6, topwear 6, hair 6, action 3, direction 3, frame 8",
        "images": "93,312",
        "size": "64x64 colour, also 60 and 32",
        "licence": "CC-BY-SA 3.0 / GPL 3.0",
        "download": "by hand",
        "note": "game characters laid together from drawn sheets; path=FOLDER, parts='all', split='train' or 'test'",
    },
    "sprites": {
        "load": "disentkit.data.sprites:load",
        "fetch": "disentkit.data.sprites:fetch",
        "factors": "seven labels of the character, action 5, view 4, frame",
        "images": "those of 672 characters",
        "size": "60x60 colour, or any",
        "licence": "none stated",
        "download": "by hand",
        "note": "game characters of Reed et al.; path=FOLDER of sprites_*.mat, split='train', 'valid', 'test' or 'all'",
    },
    "boxed": {
        "load": "disentkit.data.boxed:load",
        "fetch": "disentkit.data.boxed:fetch",
        "factors": "label, where classes are known",
        "images": "11,788 of CUB-200-2011, 20,580 of Stanford Dogs, 16,185 of Stanford Cars, or yours",
        "size": "64x64 colour, also 32 and 128",
        "licence": "each set's own terms",
        "download": "by hand",
        "note": "photographs with boxes, for FineGAN; path=FOLDER, layout=cub, dogs, cars or csv, split=train, most=N",
    },
}

# Keys of a batch that are made of plain data by a wrapper, "module:class", called as wrapper(data, reads=keys).
_WRAPPERS = {
    "group": "disentkit.data.groups:Groups",
    "edges": "disentkit.data.groups:Groups",
    "strangers": "disentkit.data.groups:Groups",
    "mask": "disentkit.data.masked:Masked",
    "full": "disentkit.data.views:Views",
    "box": "disentkit.data.views:Views",
}


def names() -> list[str]:
    """The data sets that `load` knows."""
    return list(_SETS)


def describe() -> list[dict[str, str]]:
    """A row per data set: name, factors, images, size, licence, download, note."""
    shown = ("factors", "images", "size", "licence", "download", "note")
    return [{"name": name} | {key: row[key] for key in shown} for name, row in _SETS.items()]


def load(name: str, **options: Any) -> Data:
    """The data set `name`; its options are those of its module's loader.

    Raises UserError for an unknown name or option and for missing or broken files.
    """
    parameters = options_of(name)
    for option in options:
        one_of(f"option for data set '{name}':", option, parameters)
    needed = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if needed:
        raise UserError(f"data set '{name}' needs {', '.join(f'{option}=...' for option in needed)}")
    return _function(_SETS[name]["load"])(**options)


def complete(data: Data, reads: Iterable[str]) -> Data:
    """The data themselves where their batches hold all keys in `reads`, else wrapped so that they do.

    Keys that no wrapper makes are left to whoever draws. Raises ValueError where the data cannot be wrapped,
    and for boxes outside their view.
    """
    wanted = [key for key in reads if key in _WRAPPERS]
    if wanted:
        import torch

        have = data.sample(32 if "box" in wanted else 1, torch.Generator(data.device).manual_seed(0))
        if {"full", "box"} <= set(have):  # somebody's own: what is wrong with them shows here, not in the training
            _function("disentkit.data.views:check_boxes")(have["box"], have["full"].shape[-1])
        missing = {_WRAPPERS[key] for key in wanted if key not in have}
        for place in sorted(missing):  # also those of its keys that are there: a wrapper replaces the whole batch
            data = _function(place)(data, reads=tuple(key for key in wanted if _WRAPPERS[key] == place))
    return data


def options_of(name: str) -> Mapping[str, inspect.Parameter]:
    """What `load(name, ...)` takes; raises UserError for an unknown name."""
    return inspect.signature(_function(_SETS[one_of("data set", name, _SETS)]["load"])).parameters


def fetch(name: str) -> Path:
    """Download the real files of a data set, check them, and return where they lie. Raises UserError, also offline."""
    place = _SETS[one_of("data set", name, _SETS)]["fetch"]
    if not place:
        raise UserError(f"data set '{name}' needs no download")
    return _function(place)()


def folder_of(name: str) -> Path:
    """Where `fetch` puts the files of a data set."""
    return home() / "datasets" / name


def download(url: str, file: str, md5: str, folder: str) -> Path:
    """Fetch one file into `folder_of(folder)` unless it lies there whole; raise UserError where that fails."""
    import pooch

    path = folder_of(folder) / file
    try:
        pooch.retrieve(url, known_hash=f"md5:{md5}", fname=file, path=path.parent, progressbar=True)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong hash is a ValueError
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"could not fetch {url} ({why}); put it by hand at {path}") from None
    return path


def _function(place: str) -> Callable:
    module, name = place.split(":")
    return getattr(import_module(module), name)
