"""Raw rows become the numbers that kfloop's encoders give, bit for bit, in the server's own Python, where kfloop and pyarrow are not."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import raw_models
from kfloop.core.encoding import bare, restore_encoder
from kfloop.core.encoding.bare.forms import BadRow, RawForm, raw_inputs
from kfloop.errors import NoEmbeddedServer
from kfloop.serving import runtime

TABLE, TEXT = raw_models.TABLE, raw_models.TEXT
NAMES = ["age", "far away", "member", "since", "column.number", "Ort"]
ODD = [
    "",
    " ",
    "rain",
    "RAIN wind",
    "über Über ÜBER",
    "東京 rain",
    "ﬁne ½ ⅷ",
    "123 12345 ٣٤",
    "a_b__c",
    "e\u0301te\u0301",
    "🌧️🌧️",
    "\x00\x7f",
]
ODD += ["x" * 5000, "rain " * 400, "İstanbul ẞ", "<rain>", "\u200b", "wind\n\twind", "-1.5e-3", "ﷺ"]


def texts() -> list[str | None]:
    dice = np.random.default_rng(3)
    letters = [*"abc ÄöŞ東0123_-.<>\n", "\u0301", "🌊", "ﬀ"]
    return [None, *ODD, *("".join(dice.choice(letters, dice.integers(0, 60))) for _ in range(200))]


def rows(count: int = 300) -> pa.Table:
    dice = np.random.default_rng(4)

    def gaps(values: list[Any]) -> list[Any]:
        return [None if dice.random() < 0.15 else value for value in values]

    moments = [
        datetime(1969, 7, 20, tzinfo=UTC) + timedelta(microseconds=int(us))
        for us in dice.integers(0, 3 * 10**15, count)
    ]
    numbers = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e308, 5e-324, 1 / 3]
    towns = ["ulm", "köln", "koln", "São Paulo", "東京", "東", " ulm", "ULM"]
    return pa.table(
        {
            "age": pa.array(gaps([*numbers, *dice.normal(size=count - len(numbers)).tolist()]), pa.float64()),
            "far away": pa.array(gaps((1e9 + dice.normal(size=count)).tolist()), pa.float64()),
            "member": pa.array(gaps((dice.random(count) < 0.5).tolist()), pa.bool_()),
            "since": pa.array(gaps(moments), pa.timestamp("us", "UTC")),
            "number": pa.array(gaps(dice.choice(towns, count).tolist()), pa.string()),
            "Ort": pa.array(dice.choice(["", "a", "b"], count).tolist(), pa.string()),
        }
    )


def raw(table: pa.Table) -> list[np.ndarray]:
    """The rows as a client sends them."""
    arrays = []
    for name in table.column_names:
        values = table[name].to_pylist()
        if name in {"age", "far away", "member"}:
            arrays.append(np.array([np.nan if value is None else float(value) for value in values]))
        else:
            told = ["" if v is None else v if isinstance(v, str) else v.isoformat() for v in values]
            arrays.append(np.array([value.encode() for value in told], dtype=object))
    return arrays


def test_a_table_and_texts_give_the_encoders_numbers() -> None:
    table = rows()
    for mine, right in zip(
        RawForm(TABLE, ["number"]).encoded(raw(table)), restore_encoder(TABLE).encode(table), strict=True
    ):
        assert mine.dtype == right.dtype
        assert mine.tobytes() == right.tobytes()
    written = texts()
    sent = np.array([(text or "").encode() for text in written], dtype=object)
    right = restore_encoder(TEXT).encode(pa.table({"text": pa.array(written, pa.string())}))
    for mine, expected in zip(RawForm(TEXT, ["tokens", "pieces"]).encoded([sent]), right, strict=True):
        assert mine.tobytes() == expected.tobytes()


INSIDE = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from bare.forms import RawForm
for name in ("kfloop", "pyarrow"):
    assert name not in sys.modules
told = json.load(open(sys.argv[2]))
arrays = [np.array([v.encode() for v in c] if c and isinstance(c[0], str) else [float(v) for v in c], object if c and isinstance(c[0], str) else float)
          for c in told["columns"]]
found = RawForm(told["encoder"], told["tensors"]).encoded(arrays)
np.savez(sys.argv[3], *found)
print(np.__version__)
"""


@pytest.mark.parametrize("kind", ["table", "text"])
def test_the_servers_numpy_gives_the_same_bits(kind: str, tmp_path: Path) -> None:
    try:
        python = runtime.locate().root / "bin" / "python3"
    except NoEmbeddedServer as error:
        pytest.skip(error.message)
    table = rows() if kind == "table" else pa.table({"text": pa.array(texts(), pa.string())})
    encoder = {"table": TABLE, "text": TEXT}[kind]
    columns = [
        [value.decode() if isinstance(value, bytes) else repr(float(value)) for value in array] for array in raw(table)
    ]
    numeric = [name in {"age", "far away", "member"} for name in table.column_names]
    told = [[float(v) for v in column] if number else column for column, number in zip(columns, numeric, strict=True)]
    (tmp_path / "in.json").write_text(json.dumps({"encoder": encoder, "tensors": ["number"], "columns": told}))
    command = [
        str(python),
        "-c",
        INSIDE,
        str(Path(bare.__file__).parents[1]),
        str(tmp_path / "in.json"),
        str(tmp_path / "out.npz"),
    ]
    (tmp_path / "copy").mkdir()
    # As in a version folder: the folder alone, under its own name.
    (tmp_path / "copy" / "bare").symlink_to(Path(bare.__file__).parent)
    command[3] = str(tmp_path / "copy")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1.26")
    with np.load(tmp_path / "out.npz") as found:
        for mine, right in zip(found.values(), restore_encoder(encoder).encode(table), strict=True):
            assert mine.dtype == right.dtype
            assert mine.tobytes() == right.tobytes()


def test_columns_that_are_called_like_tensors_have_a_prefix() -> None:
    tensors = ["number", "category", "probabilities", "embedding"]
    assert [one.name for one in raw_inputs(TABLE, tensors)] == NAMES
    assert [one.is_bytes for one in raw_inputs(TABLE, tensors)] == [False, False, False, True, True, True]
    twice = {
        "modality": "table",
        "columns": [{"name": "column.number", "kind": "number"}, {"name": "number", "kind": "number"}],
    }
    assert [one.name for one in raw_inputs(twice, tensors)] == ["column.number", "column.column.number"]
    assert [one.name for one in raw_inputs(TEXT, ["tokens", "pieces"])] == ["text"]
    assert raw_inputs({"modality": "image"}, ["image"]) == ()


def test_missing_values_are_as_ingest_reads_them() -> None:
    nothing = [np.array([np.nan]), np.array([np.inf]), np.array([np.nan])]
    nothing += [np.array([b""], dtype=object) for _ in range(3)]
    number, category = RawForm(TABLE, []).encoded(nothing)
    assert np.isnan(number).all()
    assert category.tolist() == [[0, 2]]  # the last column knew "" as a category of its own


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("number", b"\xff\xfe", "column 'number': .* is no UTF-8"),
        ("since", b"yesterday", "column 'since': 'yesterday' is no time"),
        ("since", b"0001-01-01T00:00:00+14:00", "is no time"),
        ("member", 0.5, "column 'member' is true or false"),
    ],
)
def test_a_value_that_its_column_cannot_hold_is_named(column: str, value: Any, message: str) -> None:
    table = rows(10)
    arrays = raw(table)
    arrays[table.column_names.index(column)][3] = value
    with pytest.raises(BadRow, match=message):
        RawForm(TABLE, []).encoded(arrays)


def test_a_text_that_is_no_utf8_is_named() -> None:
    with pytest.raises(BadRow, match="column 'text'"):
        RawForm(TEXT, []).encoded([np.array([b"caf\xe9"], dtype=object)])
