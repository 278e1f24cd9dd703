import pytest
import torch

from disentkit import checks


def test_claim_holds_or_fails(capsys):
    checks.claim("one is one", torch.tensor(True))
    assert "holds: one is one" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="one is two"):
        checks.claim("one is two", False)


def test_learned_judges_everywhere_but_at_smoke(capsys):
    checks.learned("score", 0.1, at_least=0.5, preset="smoke")
    assert "not judged at smoke" in capsys.readouterr().out
    for preset in ("quick", "course", "paper"):
        checks.learned("score", 0.5, at_least=0.5, preset=preset)
        with pytest.raises(AssertionError, match="score: 0.100, asked for at least 0.5"):
            checks.learned("score", 0.1, at_least=0.5, preset=preset)
        with pytest.raises(AssertionError):
            checks.learned("score", float("nan"), at_least=0.5, preset=preset)


def test_exercise_untried_right_and_wrong(capsys):
    checks.exercise("1", None, 3.0)
    assert "not tried yet" in capsys.readouterr().out
    checks.exercise("1", 3.00001, 3.0)
    assert "right" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="off by 1.* Think"):
        checks.exercise("1", 4.0, 3.0, hint="Think.")
    with pytest.raises(AssertionError, match="shape"):
        checks.exercise("1", torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(AssertionError):
        checks.exercise("1", torch.tensor([float("nan")]), torch.zeros(1))


def test_exercise_by_a_test_of_its_own():
    checks.exercise("2", "z3", test=lambda a: a == "z3")
    with pytest.raises(AssertionError, match="not yet. Look"):
        checks.exercise("2", "z4", test=lambda a: a == "z3", hint="Look.")
