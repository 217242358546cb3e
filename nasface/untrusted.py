"""Files that people hand in: read only if they are files of a sane size, and parsed without growing beyond it.

What is parsed is noted, so that nothing is imported because a file names it; see `nasface.importing`.
"""

from __future__ import annotations

import csv
import errno
import json
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nasface.errors import shortened
from nasface.importing import note

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_RECIPE = 128 << 10  # bytes of a YAML file
MAX_JSON = 8 << 20  # bytes of a JSON file, or of the landmarks of one face
MAX_TABLE = 32 << 20  # bytes of a CSV file of figures, boxes or predictions
MAX_COLUMNS = 4096  # of a table: 98 landmarks take 196
MAX_LIST = 256 << 20  # bytes of a list of all faces of a dataset
MAX_VALUES = 50_000  # values in a YAML file, aliases written out
MAX_DEPTH = 40  # nested lists and mappings
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError, OverflowError)
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NotReadableError(ValueError):
    """A text that cannot be parsed, or that grows too large; callers turn it into an error of their own."""


def check_file(path: Path, most: int | None = None) -> None:
    """Refuse what is not a file: reading a pipe or a device may never end.

    Args:
        path: a file, or a link to one.
        most: largest size in bytes; None allows any.

    Raises:
        OSError: there is no such file, it is something else, or it is too large.
    """
    try:
        found = path.stat()
    except ValueError as err:  # a name with a NUL in it
        raise FileNotFoundError(errno.ENOENT, "no file can have this name", str(path)) from err
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "not a regular file")
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}, expected a file", str(path))
    if most is not None and found.st_size > most:
        size = f"it has {found.st_size >> 10:,} KiB, expected at most {most >> 10:,} KiB"
        raise OSError(errno.EFBIG, size, str(path))


def exists(path: Path) -> bool:
    """Return whether there is such a file or folder; a name that none can have, with a NUL or too long, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def parse_yaml(text: str, where: object = "a file") -> Any:
    """Parse YAML with the safe loader.

    Args:
        text: the YAML.
        where: the file, for messages about what it names.

    Raises:
        NotReadableError: it is not valid YAML, gives a key twice, has more than `MAX_VALUES` values where aliases are
            written out, is nested more deeply than `MAX_DEPTH`, or a text in it holds a NUL.
    """
    if len(text) > MAX_RECIPE:
        raise NotReadableError(f"it has {len(text):,} characters, more than {MAX_RECIPE:,}")
    try:
        # PyYAML passes on the Python errors of, for example, the date 2020-99-99, the number 0x_ or a tag without value
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)
        return _noted(loader.construct_document(node), where)
    except NotReadableError:
        raise
    except _YAML_FAULTS as err:
        raise NotReadableError(shortened(" ".join(str(err).split()), 300)) from err


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return the number of values of a YAML node with its aliases written out; `known` are those of other nodes."""
    if depth > MAX_DEPTH:
        raise NotReadableError(f"it is nested more than {MAX_DEPTH} levels deep")
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # stands until the node is counted: it contains itself
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
            names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode) and name.value != "<<"]
            if twice := [name for name, times in Counter(names).items() if times > 1]:
                raise NotReadableError(f"the key '{shortened(twice[0])}' is given twice")
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        number = 1
        for part in inner:
            number += _count(part, known, depth + 1)
            if number > MAX_VALUES:
                raise NotReadableError(f"with all aliases written out it has more than {MAX_VALUES:,} values")
        known[id(node)] = number
    return known[id(node)]


def parse_json(text: str, where: object = "a file") -> Any:
    """Parse JSON.

    Args:
        text: the JSON.
        where: the file, for messages about what it names.

    Raises:
        NotReadableError: it is not valid JSON, is nested more deeply than `MAX_DEPTH`, or a text in it holds a NUL.
    """
    try:
        return _noted(json.loads(text), where)
    except RecursionError as err:
        raise NotReadableError(f"it is nested more than {MAX_DEPTH} levels deep") from err
    except ValueError as err:
        raise NotReadableError(shortened(str(err), 300)) from err


def _noted(value: Any, where: object) -> Any:
    """Return parsed data after they were checked and noted."""
    note(_checked(value), where)
    return value


def _checked(value: Any, depth: int = 0) -> Any:
    """Return parsed data, unless they are nested too deeply or hold a NUL, which no name and no path can have."""
    if depth > MAX_DEPTH:
        raise NotReadableError(f"it is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, str):
        if "\0" in value:
            raise NotReadableError(f"the text {shortened(value)} holds a NUL character")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _checked(name, depth + 1)
            _checked(inner, depth + 1)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            _checked(inner, depth + 1)
    return value


def check_table(path: Path) -> None:
    """Refuse a CSV file with too many columns, or with a row longer than the header.

    Of such a row, pandas would take the start for an index, and shift the rest.

    Raises:
        OSError: the file cannot be read.
        ValueError: there are too many columns, a row is longer than the header, or the file is not a CSV file.
    """
    check_file(path, MAX_TABLE)
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = csv.reader(file)
            columns = len(next(rows, []))
            if columns > MAX_COLUMNS:
                raise ValueError(f"it has {columns:,} columns, more than {MAX_COLUMNS:,}")
            for row in rows:
                if len(row) > columns:
                    raise ValueError(f"line {rows.line_num} has {len(row)} cells, but there are {columns} columns")
        except csv.Error as err:
            raise ValueError(str(err)) from err


def read_table(path: Path) -> DataFrame:
    """Read a CSV file as texts, with the first row as the names of the columns; cells that a row lacks are empty.

    Pandas by itself takes the first column for an index where a row is longer than the header.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a table, or a row is longer than the header, or two columns have one name.
    """
    import pandas as pd

    check_table(path)
    frame = pd.read_csv(
        path, header=None, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig"
    )
    columns = [str(name).strip() for name in frame.iloc[0]]
    if len(set(columns)) < len(columns):
        raise ValueError(f"its columns are {shortened(', '.join(columns))}, but each may be given only once")
    frame.columns = pd.Index(columns)
    return frame.iloc[1:].fillna("").reset_index(drop=True)
