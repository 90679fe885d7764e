"""A table of clicks: CSV with the columns photo, row, column (from 0, in pixels) and label."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.files import read_lines
from data.formats.annotations import Record, Shape, files_with, name_of, numbers
from data.formats.source import Named

NAME = "a table of clicks"
COLUMNS = ("photo", "row", "column", "label")


def find(files: Iterable[Path]) -> list[Path]:
    paths = files_with(".csv", COLUMNS, files)
    return [path for path in paths if {*COLUMNS} <= {*_table(path).fieldnames}]


def read(path: Path, labels: Named) -> Iterator[Record]:
    """The photos of a table, each with its clicks."""
    shapes = defaultdict(list)
    for cells in filter(lambda cells: any(cells.values()), _table(path)):  # Excel leaves empty rows
        click = numbers([[cells["column"], cells["row"]]]) + 0.5  # a pixel's centre
        shapes[cells["photo"]].append(Shape("click", name_of(cells["label"]), lines=[click]))
    for photo, clicks in shapes.items():
        yield Record(path, photo, None, clicks)


def _table(path: Path) -> csv.DictReader:
    lines = read_lines(path)
    separator = max(",;\t", key=lines[0].count)
    return csv.DictReader(lines, delimiter=separator, skipinitialspace=True)
