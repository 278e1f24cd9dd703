"""The table of a sweep: a csv file that grows by a row at a time and is whole at every moment."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pandas as pd

from disentkit.errors import UserError

FAILED = "failed"  # the column that says why a member failed, empty for those that are done
NEEDED = {"method", "data", "seed", FAILED}


class Table:
    """Rows of text at `path`; every change is one rename.

    A row is known by what was asked, {column: value}: method, data, seed and all settings. Numbers are compared as
    numbers, for a spreadsheet may have rewritten 0.0001 as 1E-04. Columns that are not the sweep's stay as they are.
    Raises UserError for a file that is something else.
    """

    def __init__(self, path: Path):
        self.path, self.rows = path, []
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark first
                reader = csv.DictReader(file, strict=True)
                self.rows = [{k: v or "" for k, v in row.items() if k is not None} for row in reader]
                lacks = NEEDED - set(reader.fieldnames or ())
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError, csv.Error) as e:
            why = getattr(e, "strerror", None) or e
            raise UserError(f"{path} cannot be read as a table ({why}); name another file") from None
        if lacks:
            raise UserError(f"{path} is not the table of a sweep: it has no column '{min(lacks)}'; name another file")

    def has(self, asked: dict) -> bool:
        """True where a row that did not fail answers `asked`."""
        return any(not row[FAILED] and _answers(row, asked) for row in self.rows)

    def add(self, asked: dict, row: dict) -> None:
        """Write one more row, which replaces an earlier failure of the same."""
        self.rows = [r for r in self.rows if not (r[FAILED] and _answers(r, asked))]
        self.rows.append({k: "" if v is None else str(v) for k, v in (asked | row).items()})
        columns = [*(k for k in dict.fromkeys(k for r in self.rows for k in r) if k != FAILED), FAILED]
        draft = self.path.with_name(self.path.name + ".draft")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(_text(self.rows, columns))
            draft.replace(self.path)
        except OSError as e:
            draft.unlink(missing_ok=True)
            raise UserError(f"{self.path} could not be written ({e.strerror}); the runs are kept: make room") from None

    def frame(self, wanted: list[dict]) -> pd.DataFrame:
        """The rows that answer `wanted`, in that order, without columns that are empty in all of them."""
        found = [[row for row in self.rows if _answers(row, asked)][-1] for asked in wanted]
        columns = [k for k in found[0] if k == FAILED or any(row.get(k) for row in found)]
        return pd.read_csv(io.StringIO(_text([{k: row.get(k, "") for k in columns} for row in found], columns)))


def check_writable(path: Path) -> None:
    """Raise UserError where no table can be written at `path`: better before a training than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as e:
        raise UserError(f"no table can be written to {path} ({e.strerror}); name another file") from None


def _text(rows: list[dict], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _answers(row: dict, asked: dict) -> bool:
    return all(_plain(row.get(name, "")) == _plain(value) for name, value in asked.items())


def _plain(value) -> float | str:
    """A number where the text is one, else the text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return "" if value is None else str(value)
