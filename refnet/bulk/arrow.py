"""Rows as Arrow's arrays and tables. pyarrow is an extra, imported when it is first needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from refnet.bulk.rows import COLUMNS, TEXT, Field, Row
from refnet.errors import ConfigError
from refnet_kernels.system.extras import how_to_get
from refnet_kernels.system.forks import once

#: The columns of a table that hold images and ids.
IMAGE, ID = "image", "id"


@once
def pyarrow() -> Any:
    """The package, with its reader and writer of Parquet.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"The package pyarrow is missing, which Arrow's tables and Parquet need: {how_to_get('batch')}. "
            "JSON lines (format='jsonl') do without it."
        ) from error
    return pyarrow


def is_table(values: object) -> bool:
    """Whether these are Arrow's columns; pyarrow is not imported for this."""
    loaded = sys.modules.get("pyarrow")
    # Another thread may be importing it.
    kinds = [getattr(loaded, name, None) for name in ("Table", "RecordBatch")]
    return any(kind is not None and isinstance(values, kind) for kind in kinds)


def contents_of(table: Any) -> tuple[Any, Any]:
    """The columns of images and ids.

    Raises
    ------
    ConfigError
        One is not there.
    """
    missing = [name for name in (IMAGE, ID) if table.schema.get_field_index(name) < 0]
    if missing:
        raise ConfigError(f"The table has no column {missing[0]!r}; it has {', '.join(table.schema.names)}.")
    return table.column(IMAGE), table.column(ID)


def with_rows(table: Any, rows: Sequence[Row], fields: Sequence[Field]) -> Any:
    """The table's other columns, and the rows."""
    pa = pyarrow()
    made = struct_of(rows, fields)
    names = [field.name for field in made.type]
    kept = [name for name in table.schema.names if name != IMAGE and name not in names]
    return pa.table([*(table.column(name) for name in kept), *made.flatten()], names=[*kept, *names])


def type_of(fields: Sequence[Field]) -> Any:
    """The type of the rows."""
    pa = pyarrow()
    return pa.struct([pa.field(name, kind) for name, kind in _columns(fields)])


def schema_of(fields: Sequence[Field]) -> Any:
    """The schema of a table of rows."""
    return pyarrow().schema(_columns(fields))


def _columns(fields: Sequence[Field]) -> list[tuple[str, Any]]:
    pa = pyarrow()
    found = [(name, pa.string()) for name in COLUMNS]
    kinds = {"int32": pa.int32(), "float32": pa.float32(), "float64": pa.float64(), TEXT: pa.string()}
    for field in fields:
        found.append((field.name, pa.list_(kinds[field.dtype])))
        if field.has_shape:
            found.append((field.shape_name, pa.list_(pa.int32())))
    return found


def struct_of(rows: Sequence[Row], fields: Sequence[Field]) -> Any:
    """The rows as one array."""
    pa = pyarrow()
    columns = _columns(fields)
    arrays = [
        pa.array([row.id for row in rows], pa.string()),
        pa.array([row.digest for row in rows], pa.string()),
        pa.array([None if row.failure is None else row.failure.type for row in rows], pa.string()),
        pa.array([row.message for row in rows], pa.string()),
    ]
    for number, field in enumerate(fields):
        values = [None if row.values is None else row.values[number] for row in rows]
        arrays.append(_lists(values, field.dtype))
        if field.has_shape:
            arrays.append(_lists([None if value is None else value.shape for value in values], "int32"))
    return pa.StructArray.from_arrays(arrays, fields=[pa.field(name, kind) for name, kind in columns])


def _lists(values: Sequence[Any], dtype: str) -> Any:
    """A list for each value; null for None."""
    pa = pyarrow()
    if dtype == TEXT:
        return pa.array(values, pa.list_(pa.string()))
    parts = [np.zeros(0, dtype) if value is None else np.asarray(value, dtype).reshape(-1) for value in values]
    offsets = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    together = np.concatenate(parts) if parts else np.zeros(0, dtype)
    mask = pa.array([value is None for value in values], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(together), mask=mask)
