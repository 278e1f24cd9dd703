"""The direction panel without a kernel: on the oracle what is asked for is what is measured, and locks hold."""

from __future__ import annotations

import base64
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from explore.models_small import Linear
from explore.test_panel import unpack
from torch import nn

from disentkit import models
from disentkit.codes import Block, CodeSpace
from disentkit.errors import UserError
from disentkit.explore import Steer, images, meter, paths, steer
from disentkit.methods import biggan
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.steered import Steered, load_direction, make_direction
from disentkit.methods.vae import GaussianVAE
from disentkit.metrics.instruments import ExactMask, Threshold

S = torch.linspace(-4, 4, 51)
UNITS = {"x": "fraction of the width", "y": "fraction of the height"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Measured values do not wait for rest, however busy the machine is."""
    monkeypatch.setattr(steer, "CHEAP", math.inf)


def true_direction(oracle: OracleGenerator, name: str):
    return make_direction(name, oracle.u(name), S, oracle.g(name, S), UNITS.get(name, ""))


def steered(size: int = 32, names=("x", "y", "zoom"), **options) -> Steered:
    oracle = OracleGenerator(size, d=12, **options)
    return Steered(oracle, [true_direction(oracle, name) for name in names])


def panel(instrument=True, **options) -> Steer:
    """A panel over the oracle, at its middle, whose sheet is drawn only when asked for."""
    model = options.pop("model", None) or steered()
    shown = Steer(model, ExactMask(model) if instrument is True else instrument, **options)
    shown._at_rest = lambda then: None
    shown.code = torch.zeros(12)
    return shown


def note(shown: Steer, name: str) -> str:
    """What is said below a slider."""
    return shown.rows[name].note.value.split("line-height: 18px'>")[1].split("<span")[0]


def assert_shows(shown: Steer, code) -> None:
    """The live picture is decode(code), enlarged by a whole number, and the sliders and `t` are what it reads."""
    expected = images.to_uint8(models.decode(shown.model, torch.as_tensor(code).reshape(1, -1)))[0]
    picture = unpack(shown.picture.value)
    times = picture.shape[0] // expected.shape[0]
    assert shown.error == "" and times > 1 and np.array_equal(picture, expected.repeat(times, 0).repeat(times, 1))
    for name, direction in shown.model.directions.items():
        read = direction.read(shown.code).item()
        assert shown.t[name] == read and shown.controls[name].value == pytest.approx(read, abs=1e-5)


# ---- sliders, what is asked for and what is measured


def test_a_slider_sets_its_direction_and_the_picture():
    shown = panel()
    before = shown.picture.value
    shown.controls["x"].value = 0.1
    assert shown.t["x"] == pytest.approx(0.1, abs=1e-5)
    assert np.abs(unpack(before).astype(int) - unpack(shown.picture.value)).max() > 20
    expected = shown.model.directions["x"].write(torch.zeros(1, 12), torch.tensor([[0.1]]))
    assert torch.allclose(shown.code, expected)
    assert_shows(shown, expected)
    shown.set("zoom", -0.2)
    assert shown.t["zoom"] == pytest.approx(-0.2, abs=1e-5) and shown.t["x"] == pytest.approx(0.1, abs=1e-5)
    assert_shows(shown, shown.code)
    shown.buttons["reset"].click()
    assert_shows(shown, torch.zeros(12))


def test_measured_follows_asked_on_the_oracle():
    shown = panel()
    for name, middle in ("x", 0.5), ("y", 0.5), ("zoom", shown.model.base.middles[2].item()):
        for t in (-0.2, 0.15):
            shown.set(name, t)
            assert shown.measured()[name] == pytest.approx(middle + t, abs=0.01)
        assert note(shown, name).startswith("asked +0.15, measured ")
        shown.reset()
    assert "brightness" in shown.measured() and "also brightness 0.4" in shown.others.value  # measured, not steered
    shown.set("x", 0.1)
    assert note(shown, "x") == "asked +0.10, measured 0.60 (+0.10)" and note(shown, "y").startswith("asked +0.00")


def test_what_is_asked_for_counts_from_the_start():
    shown = panel()
    start = shown.model.directions["x"].write(torch.zeros(1, 12), torch.tensor([[-0.15]]))
    shown.code = start
    assert torch.equal(shown.start, start) and note(shown, "x") == "asked +0.00, measured 0.35 (+0.00)"
    shown.set("x", 0.05)
    assert note(shown, "x") == "asked +0.20, measured 0.55 (+0.20)"


def test_the_range_is_that_of_g_and_the_likely_one_is_shaded():
    shown = panel()
    x, slider = shown.model.directions["x"], shown.controls["x"]
    low, high = x.g(torch.tensor([-3.0, 3.0])).tolist()
    assert low - slider.step <= slider.min <= low and high <= slider.max <= high + slider.step
    assert slider.description == "x (fraction of the width)"
    assert "likely -0.29 to +0.29" in shown.rows["x"].note.value and "background: #7fb6dd" in shown.rows["x"].note.value
    shown.set("x", 0.9)  # beyond what the oracle can do: the slider widens, and what is measured says the truth
    assert slider.max >= 0.9 and shown.measured()["x"] < 0.81
    stats = [{"name": "y", "low": -0.1, "high": 0.1, "importance": 0.5, "unit": "R2"}, {"name": "x", "importance": 0.3}]
    shown = panel(stats=stats)
    assert list(shown.controls) == ["y", "x", "zoom"] and "likely -0.10 to +0.10" in shown.rows["y"].note.value
    assert shown.controls["y"].description.split()[-2:] == ["0.5", "R2"]


def test_one_decode_for_an_event():
    class Counting(OracleGenerator):
        decoded = 0

        def decode(self, codes):
            self.decoded += 1
            return super().decode(codes)

    oracle = Counting(16, d=12)
    model = Steered(oracle, [true_direction(oracle, name) for name in ("x", "y")])
    shown = panel(model=model)
    for act in (lambda: shown.set("x", 0.1), lambda: shown.set("y", 0.1), shown.reset, lambda: shown.draw(3)):
        oracle.decoded = 0
        act()
        shown.measured()
        assert oracle.decoded == 1 and shown.error == ""


def test_the_base_is_frozen_while_it_is_shown():
    class Normed(Linear):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def decode(self, codes):
            assert not self.norm.training and not torch.is_grad_enabled()
            return super().decode(self.norm(codes))

    base = Normed().train()
    shown = Steer(Steered(base, [make_direction("a", [1.0, 0, 0])]), Threshold())
    shown.set("a", 0.5)
    assert shown.error == "" and base.norm.training and base.norm.num_batches_tracked == 0


# ---- the instrument


def test_no_instrument_is_said():
    shown = panel(instrument=None)
    shown.set("x", 0.1)
    assert shown.measured() == {} and note(shown, "x") == "asked +0.10, not measured"
    assert "no instrument was given, so nothing is measured" in shown.others.value


class Told:
    """An instrument that says what it is told to."""

    names = ("x", "light")

    def __init__(self, row, slow: float = 0.0):
        self.row, self.slow, self.calls, self.clock = row, slow, 0, 0.0

    def __call__(self, x, codes=None):
        assert not torch.is_grad_enabled() and torch.get_num_threads() == 1 and len(x) == len(codes)
        self.calls += 1
        self.clock += self.slow
        return torch.tensor([self.row] * len(x))


def test_what_was_not_found_is_said():
    nan = math.nan
    shown = panel(instrument=(tell := Told([0.5, 0.2])))
    tell.row = [nan, 0.3]
    shown.set("x", 0.1)
    assert note(shown, "x") == "asked +0.10, not found" and math.isnan(shown.measured()["x"])
    assert "measured by Told; also light 0.30 (+0.10)" in shown.others.value
    assert note(shown, "y") == "asked +0.00, not measured"
    tell.row = [0.7, 0.3]
    shown.set("x", 0.2)
    assert note(shown, "x") == "asked +0.20, measured 0.70 (+0.20)"
    shown = panel(instrument=(tell := Told([nan, 0.0])))
    tell.row = [0.4, 0.0]
    shown.set("x", 0.1)
    assert note(shown, "x") == "asked +0.10, measured 0.40 (not found at the start)"


def test_a_slow_instrument_waits_for_rest(monkeypatch):
    slow, waiting = Told([0.6, 0.2], slow=0.02), []
    monkeypatch.setattr(steer, "CHEAP", 0.005)
    monkeypatch.setattr(steer, "time", SimpleNamespace(perf_counter=lambda: slow.clock))
    shown = Steer(steered(16), slow)
    shown._at_rest = waiting.append
    calls = slow.calls
    for t in (0.1, 0.12, 0.14):
        shown.controls["x"].value = t
        assert_shows(shown, shown.code)  # the picture does not wait
        assert "measured ..." in note(shown, "x") and slow.calls == calls
    waiting[-1]()
    assert slow.calls == calls + 2 and "measured 0.60" in note(shown, "x")  # the picture, and the sheet
    slow.slow = 0.0
    shown.controls["x"].value = 0.2
    waiting[-1]()
    calls = slow.calls
    shown.controls["x"].value = 0.21  # it has been quick, so it is asked at once
    assert slow.calls == calls + 1 and "measured 0.60" in note(shown, "x")


def test_an_instrument_that_fails_costs_no_picture():
    shown = panel(instrument=(tell := Told([0.5, 0.2])))
    tell.row = [0.5, 0.2, 0.1]
    before = shown.picture.value
    shown.controls["x"].value = 0.1
    assert "Told names x, light and must give (1, 2) values, not (1, 3)" in shown.error
    assert shown.picture.value != before and "measured ..." in note(shown, "x")


# ---- locks


def oblique() -> Steered:
    """Directions that are not orthogonal: y moves x as well, and `both` lies in the span of the two."""
    oracle = OracleGenerator(16, d=12)
    x, y = oracle.u("x"), oracle.u("y")
    made = [true_direction(oracle, "x"), make_direction("y", y + 0.8 * x), make_direction("both", x - y)]
    return Steered(oracle, [*made, true_direction(oracle, "zoom")])


def test_a_locked_direction_is_held_while_another_moves():
    shown = panel(model=oblique())
    shown.set("x", 0.1)
    shown.set("y", 0.5)
    assert abs(shown.t["x"] - 0.1) > 0.02  # without a lock it moves along
    shown.set("x", 0.1)
    shown.locks["x"].value = True
    assert shown.locked == ("x",) and shown.controls["x"].disabled and shown.locks["x"].description == "locked"
    slider, projection = shown.controls["x"].value, shown.model.directions["x"].projection(shown.code)
    for t in np.linspace(-1.2, 1.2, 20):
        shown.controls["y"].value = float(t)
        assert shown.t["y"] == pytest.approx(t, abs=1e-5) and shown.controls["x"].value == slider
    after = shown.model.directions["x"].projection(shown.code)
    assert torch.allclose(projection, after, atol=1e-5) and shown.error == ""
    with pytest.raises(ValueError, match="'x' is locked; lock\\('x', False\\) lets it go"):
        shown.set("x", 0.0)
    shown.lock("x", False)
    assert shown.locked == () and not shown.controls["x"].disabled and not shown.locks["x"].value
    shown.set("x", 0.0)
    assert shown.t["x"] == pytest.approx(0, abs=1e-6)


def test_a_direction_within_the_locked_ones_cannot_move():
    shown = panel(model=oblique())
    shown.lock("x"), shown.lock("y")
    before, sheet = shown.code, shown.sheet()
    shown.controls["both"].value = 0.5
    assert "'both' cannot move while x, y stand still" in shown.error and "role='alert'" in shown.error_line.value
    assert torch.equal(shown.code, before) and shown.controls["both"].value == pytest.approx(shown.t["both"])
    assert np.array_equal(sheet, shown.sheet())  # it has a row, of one picture
    with pytest.raises(ValueError, match="cannot move"):
        shown.set("both", 0.5)
    shown.controls["zoom"].value = 0.1
    assert shown.error == "" and shown.t["zoom"] == pytest.approx(0.1, abs=1e-5)
    shown.lock("y", False)
    shown.controls["both"].value = 0.5
    assert shown.error == "" and shown.t["both"] == pytest.approx(0.5, abs=1e-5)


# ---- seeds and classes


def test_draw_takes_the_seed_and_then_the_next_one():
    model = steered(16)
    shown = Steer(model, seed=4)
    prior = [model.prior(1, torch.Generator().manual_seed(seed)) for seed in (4, 5, 7, 8)]
    assert torch.equal(shown.code, prior[0]) and shown.seed_field.value == 4
    shown.buttons["draw"].click()
    assert torch.equal(shown.code, prior[1]) and shown.seed_field.value == 5
    shown.seed_field.value = 7
    assert torch.equal(shown.code, prior[1])
    shown.buttons["draw"].click()
    assert torch.equal(shown.code, prior[2]) and torch.equal(shown.start, prior[2])
    assert shown.t == {name: d.read(prior[2]).item() for name, d in model.directions.items()}
    shown.set("x", 0.2)
    shown.draw(8)
    assert torch.equal(shown.code, prior[3]) and shown.seed_field.value == 8 and note(shown, "x").startswith("asked +0")
    shown.code = prior[0]
    shown.buttons["draw"].click()  # the field's seed is not what is shown
    assert torch.equal(shown.code, prior[3])
    for seed in (-1, 2.5, 2**31):
        with pytest.raises(ValueError, match="seed must be"):
            shown.draw(seed)


def gan() -> Steered:
    """A BigGAN of 16 pixels with random weights: four classes, three chunks."""
    torch.manual_seed(0)
    factor = type("Shapes", (), {"labels": ("disc", "square", "triangle", "star"), "__len__": lambda self: 4})()
    base = biggan.Sampler((3, 16, 16), factor, biggan.Settings(ch=2, chunk=4, attention=0, size=16)).eval()
    u = torch.randn(2, base.codes.size)
    u[:, :4] = 0
    return Steered(base, [make_direction("x", u[0], unit="fraction"), make_direction("y", u[1])])


def test_another_class_changes_the_picture_and_no_direction():
    shown = Steer(gan(), Threshold())
    picker = shown.pickers["class"]
    assert [label for label, _ in picker.options] == ["disc", "square", "triangle", "star"] and shown.error == ""
    shown.set("x", 0.5)
    before, code, t = shown.picture.value, shown.code, shown.t
    picker.value = (picker.value + 1) % 4
    assert shown.picture.value != before and torch.equal(shown.code[:, 4:], code[:, 4:]) and shown.t == t
    assert_shows(shown, shown.code)
    assert note(shown, "x").startswith("asked") and not note(shown, "x").startswith("asked +0.00")
    shown.pick("class", "star")
    assert picker.value == 3 and shown.code[0, :4].tolist() == [0, 0, 0, 1]
    shown.reset()
    assert shown.code[0, :4].tolist() == [0, 0, 0, 1] and note(shown, "x").startswith("asked +0.00")
    for _ in range(3):
        shown.draw()
        assert shown.code[0, :4].tolist() == [0, 0, 0, 1]
    for which, message in ("moon", "it has disc, square"), (4, "no '4'"), (1.5, "no '1.5'"):
        with pytest.raises(ValueError, match=message):
            shown.pick("class", which)
    with pytest.raises(ValueError, match="no class 'kind' to pick; this model has class"):
        shown.pick("kind", 0)


def test_a_vae_and_a_users_three_lines_can_be_steered():
    torch.manual_seed(0)
    vae = Steered(GaussianVAE((1, 16, 16), d=4, fc=8), [make_direction("x", torch.ones(4))])
    shown = Steer(vae, Threshold())
    shown.set("x", 1.0)
    assert_shows(shown, shown.code)

    class Lines:
        codes, image_shape = CodeSpace([Block("z", "uniform", (2,), low=-1.0, high=1.0)]), (1, 8, 8)

        def decode(self, codes):
            return (codes.sum(1) / 4 + 0.5).reshape(-1, 1, 1, 1).expand(-1, *self.image_shape)

    shown = Steer(Steered(Lines(), [make_direction("light", [1.0, 1.0])]))
    shown.set("light", 0.5)
    assert_shows(shown, shown.code)


# ---- saving and adding directions


def test_a_direction_is_saved_loaded_and_added(tmp_path):
    folder = tmp_path / "kept"
    shown = panel(folder=folder)
    shown.which.value, shown.name_field.value = "y", "down"
    shown.buttons["save direction"].click()
    assert shown.error == "" and str(folder / "down.json") in shown.words_line.value
    loaded = load_direction(folder / "down.json", shown.model.codes)
    assert loaded.name == "down" and np.allclose(loaded.u, shown.model.directions["y"].u)
    shown.add(loaded)
    assert list(shown.controls) == ["x", "y", "zoom", "down"] == list(shown.which.options) and "down" in shown.locks
    shown.controls["down"].value = 0.1
    assert shown.t["y"] == pytest.approx(0.1, abs=1e-5) and shown.measured()["y"] == pytest.approx(0.6, abs=0.01)
    assert len(shown.widget.children[0].children[1].children[0].children) == 4 and "down" in repr(shown)
    with pytest.raises(ValueError, match="there is a block 'down' already"):
        shown.add(loaded)
    with pytest.raises(ValueError, match="a panel adds a Direction"):
        shown.add(folder / "down.json")
    with pytest.raises(ValueError, match="codes of"):
        shown.add(make_direction("short", [1.0, 0.0]))


def test_saving_never_overwrites_another_direction(tmp_path):
    shown = panel(folder=tmp_path)
    path = shown.save_direction("x")
    written = path.read_bytes()
    assert path == tmp_path / "x.json" and shown.save_direction("x") == path and path.read_bytes() == written
    with pytest.raises(UserError, match="x.json holds another direction; choose another name"):
        shown.save_direction("y", "x")
    shown.which.value, shown.name_field.value = "y", "x"
    shown.buttons["save direction"].click()
    assert "holds another direction" in shown.error and path.read_bytes() == written
    for name in ("../x", "a/b", ".", "", "x" * 300, "nul\0"):
        if name:
            with pytest.raises(UserError, match="cannot name a file"):
                shown.save_direction("x", name)
    with pytest.raises(ValueError, match="no direction 'w'; there are x, y, zoom"):
        shown.save_direction("w")
    (tmp_path / "zoom.json").write_text("{}")
    with pytest.raises(UserError, match="no direction that the kit saved"):
        shown.save_direction("zoom")
    shown.folder = path
    with pytest.raises(UserError):
        shown.save_direction("y")


def test_directions_are_saved_in_the_kits_home_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path))
    assert panel().save_direction("x") == tmp_path / "directions" / "x.json"


# ---- the sheet


def test_the_sheet_of_paths(tmp_path):
    shown = panel(title="oracle")
    shown.set("y", -0.1)
    sheet = shown.sheet(columns=5)
    high = 64 + 2 * paths.LINE + 4 + images.GAP
    assert sheet.dtype == np.uint8 and sheet.shape[0] == 25 + 3 * high
    left = sheet.shape[1] - 5 * (64 + images.GAP)
    for i, (name, direction) in enumerate(shown.model.directions.items()):
        for k, t in enumerate(np.linspace(direction.low, direction.high, 5)):
            code = direction.write(shown.code, torch.tensor([[float(t)]]))
            top, at = 25 + i * high, left + k * (64 + images.GAP)
            tile = sheet[top : top + 64, at : at + 64]
            assert np.abs(tile.astype(int) - shown.render(code).repeat(2, 0).repeat(2, 1)).max() <= 1, (name, k)
            under = sheet[top + 64 : top + high - images.GAP, at : at + 64]
            assert (under < 100).any() and (under[paths.LINE :] < 200).any()  # t, and what was measured
    assert np.array_equal(unpack(shown.save(tmp_path / "paths.png", columns=5).read_bytes()), sheet)
    with pytest.raises(ValueError, match="columns must be"):
        shown.sheet(columns=0)
    assert panel(instrument=None).sheet().shape[0] == 3 * (64 + paths.LINE + 4 + images.GAP) + images.GAP


def test_the_sheet_follows_at_rest_and_stands_in_pages_without_a_kernel():
    shown = Steer(steered(16), title="oracle")
    before = shown.sheet_picture.value
    assert before and shown.sheet_picture.value == images.png(shown._sheet(shown.columns, ""))
    shown.set("x", 0.2)
    assert shown.sheet_picture.value != before
    bundle = shown._repr_mimebundle_()
    assert np.array_equal(unpack(base64.b64decode(bundle["image/png"])), shown.sheet())
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.widget.model_id
    assert repr(shown).startswith("Steer of Steered: x=0.2, y=")


def test_locked_directions_are_held_in_the_sheet():
    shown = panel(model=oblique())
    free = shown.sheet(3)
    shown.lock("x")
    assert not np.array_equal(shown.sheet(3), free)
    x = shown.model.directions["x"]
    moved = shown.held("y").write(torch.zeros(3, 12), torch.tensor([[-1.0], [0.0], [1.0]]))
    assert torch.allclose(x.read(moved), torch.zeros(3, 1), atol=1e-6)


# ---- what goes wrong


def test_a_model_that_draws_nan_is_told():
    base = Linear()
    shown = Steer(Steered(base, [make_direction("a", [1.0, 0.0, 0.0])]), Threshold())
    before = shown.picture.value
    with torch.no_grad():
        base.weights.fill_(math.nan)
    shown.controls["a"].value = 1.0
    assert "NaN" in shown.error and shown.picture.value == before
    assert "image/png" not in shown._repr_mimebundle_()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Steer(Linear()), "Linear has no directions to steer; learn some first"),
        (lambda: Steer(OracleGenerator(16)), "OracleGenerator has no directions to steer"),
        (lambda: Steer(Steered(Linear())), "Steered has no directions to steer"),
        (lambda: Steer("model"), "a panel takes a model"),
        (lambda: Steer(steered(16), Threshold), "an instrument .* the class Threshold is none"),
        (lambda: Steer(steered(16), "mask"), "an instrument .*; str is none"),
        (lambda: Steer(steered(16), stats=[{"name": "w"}]), "no block 'w'"),
        (lambda: Steer(steered(16), seed=-1), "seed must be"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_values_change_nothing():
    shown = panel()
    for name, value, message in [
        ("w", 0.1, "no direction 'w'; there are x, y, zoom"),
        ("x", math.nan, "'x' is set to a finite number"),
        ("x", "far", "'x' is set to a finite number"),
    ]:
        with pytest.raises(ValueError, match=message):
            shown.set(name, value)
    with pytest.raises(ValueError, match="no direction 'w'"):
        shown.lock("w")
    nan = torch.full((12,), math.nan)
    for code, message in (
        (torch.zeros(3), "codes must be"),
        (torch.zeros(2, 12), "one code"),
        (nan, "finite"),
        ("z", "co"),
    ):
        with pytest.raises(ValueError, match=message):
            shown.code = code
    assert torch.equal(shown.code, torch.zeros(1, 12))


def test_numbers_in_words():
    assert meter.signed(-0.001) == "+0.00" and meter.number(math.nan) == "not found" and meter.number(0.614) == "0.61"
    assert [meter.decimals(span) for span in (10, 0.6, 0.05)] == [2, 2, 3]
    assert meter.changed(None, 0.5) == "..." and meter.changed(0.5, None) == "0.50"
