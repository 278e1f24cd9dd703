"""The one exception the kit raises when something outside it is wrong: files, settings, machines."""

import math
import numbers

SHOWN = 20  # names listed in one line


class UserError(Exception):
    """One line that says what was wrong and what to do. The command line prints it alone, without a traceback."""


def one_of(what: str, name: str, known) -> str:
    """Return `name` if it is among `known`; otherwise raise a UserError that lists them and the nearest one."""
    import difflib

    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    raise UserError(f"unknown {what} '{name}'.{hint} Known: {', '.join(known[:SHOWN])}{more}.")


def whole(what: str, value, least: int = 1, most: int | None = None) -> int:
    """`value` as an int in least ... most; raises UserError for any other value, 2.5 and True among them."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and least <= value <= (most or value):
        return int(value)
    reach = f"of {least} or more" if most is None else f"in {least} ... {most}"
    raise UserError(f"{what} must be a whole number {reach}, not {value!r}")


def finite(what: str, value, above: float = -math.inf) -> float:
    """`value` as a finite float above `above`; raises UserError for any other value."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and above < value < math.inf:
        return float(value)
    limit = "" if above == -math.inf else f" above {above:g}"
    raise UserError(f"{what} must be a finite number{limit}, not {value!r}")
