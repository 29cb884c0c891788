"""Reads csv and tsv tables strictly: what could cut a text or swallow rows is refused with file and line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.readers.lines import manifest_path, text_lines
from wfc_dist.data.rows import Columns, SourceRow, audio_column_of, audio_paths, file_audio
from wfc_dist.errors import InputError

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_MAX_LINES = 100
"""A text within quotes has at most that many lines; more is a quotation mark that was never closed."""
_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"(?!")')


def table_rows(path: Path, quoting: Literal["minimal", "none"] = "minimal") -> Iterator[tuple[str, dict[str, str]]]:
    """Yields ("file:line", column -> cell) of every row of a table whose first line names the columns. Blank lines are skipped.

    Args:
        path: A .csv (commas) or .tsv (tabs), plain or with .gz.
        quoting: `minimal`: a cell that begins with a quotation mark ends at the next single one, and may hold separators and
            line breaks. `none`: a quotation mark is a letter.

    Raises:
        InputError: The file cannot be read, or a line is not what the header says; names file and line.
    """
    separator = _SEPARATORS.get(path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix)
    if separator is None:
        raise InputError(f"{path}: a table ends in .csv (commas) or .tsv (tabs), or in one of them with .gz; rename it")
    lines = _Records(path, separator, quoted=quoting == "minimal")
    header: list[str] | None = None
    for number, cells in lines:
        where = f"{path}:{number}"
        if header is None:
            header = _header(where, cells)
        elif len(cells) != len(header):
            raise InputError(f"{where}: {_wrong_number(cells, header, separator)}")
        else:
            yield where, dict(zip(header, cells, strict=True))


def _header(where: str, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: two columns are called {twice!r}; rename or remove one")
    return header


def _wrong_number(cells: list[str], header: list[str], separator: str) -> str:
    say = f"the row has {len(cells)} cells, but the header names {len(header)} columns"
    if len(cells) < len(header):
        return f"{say}; complete the row"
    return f"{say}; put a text that has a {'comma' if separator == ',' else 'tab'} within quotation marks"


class _Records:
    """Iterates over (number of its first line, cells) of the records of a table."""

    def __init__(self, path: Path, separator: str, *, quoted: bool) -> None:
        self._path, self._separator, self._quoted, self._num_columns = path, separator, quoted, 0
        self._lines = text_lines(path)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for number, line in self._lines:
            if not line.strip(" \r"):
                continue
            _check_letters(f"{self._path}:{number}", line)
            cells = line.split(self._separator)
            if self._quoted and any(cell.startswith('"') for cell in cells):
                cells = self._quoted_cells(number, line)
            self._num_columns = self._num_columns or len(cells)
            yield number, cells

    def _quoted_cells(self, first: int, record: str) -> list[str]:
        """Returns the cells of a record with quotation marks, reading on while one is open."""
        for _ in range(_MAX_LINES):
            cells = self._split(first, record)
            if cells is not None:
                return cells
            number, line = next(self._lines, (first, None))
            if line is None:
                raise InputError(self._open_quote(first, "never closed"))
            _check_letters(f"{self._path}:{number}", line)
            if self._looks_like_a_row(line):
                raise InputError(self._open_quote(first, f"still open in line {number}, which looks like a row of its own"))
            record += f"\n{line}"
        raise InputError(self._open_quote(first, f"still open after {_MAX_LINES} lines"))

    def _open_quote(self, first: int, how: str) -> str:
        return (
            f"{self._path}:{first}: a quotation mark that opens a cell is {how}; close it, or double it and put the text within "
            "quotation marks (where every quotation mark is a letter: quoting: none)"
        )

    def _looks_like_a_row(self, line: str) -> bool:
        return line.count(self._separator) >= max(self._num_columns - 1, 1)

    def _split(self, first: int, record: str) -> list[str] | None:
        """Returns the cells of a record; None if a quotation mark is open at its end."""
        cells, at = [], 0
        while True:
            if record.startswith('"', at):
                match = _QUOTED.match(record, at)
                if match is None:
                    return None
                cell, end = match[1].replace('""', '"'), match.end()
                if end < len(record) and record[end] != self._separator:
                    raise InputError(
                        f"{self._path}:{first}: text stands behind a closing quotation mark ({record[end : end + 20]!r}); double "
                        "the quotation marks of the text and put it all within quotation marks"
                    )
            else:
                end = record.find(self._separator, at)
                end = len(record) if end < 0 else end
                cell = record[at:end]
            cells.append(cell)
            if end == len(record):
                return cells
            at = end + 1


def _check_letters(where: str, line: str) -> None:
    if "\0" in line:
        raise InputError(f"{where}: the line has NUL characters; convert the file to UTF-8 text")
    if "\r" in line:
        raise InputError(f"{where}: a carriage return within the line; end lines with a line feed")


def csv_rows(dataset: DatasetConfig, file_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a table; audio paths are relative to its folder. Raises InputError naming file and line."""
    table = manifest_path(dataset, file_name)
    path_of = audio_paths(dataset, table.parent)
    column, columns = "", Columns(dataset, is_table=True)
    for where, row in table_rows(table, dataset.quoting):
        if not column:
            column = audio_column_of(dataset, row, where)
            columns = Columns(dataset, read=(column,), is_table=True)
        name = row[column].strip()
        if not name:
            raise InputError(f"{where}: no audio path under {column!r}; write it, or take the row out")
        yield columns.row(row, where, name=name, audio=file_audio(path_of(name)))
