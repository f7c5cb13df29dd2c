"""Graphs: npz arrays, tables and folders; dangling edges, masks, and every refusal by array and row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from kfloop.components.ingest.readers.graphs import nodes as graphs_nodes
from kfloop.components.ingest.readers.graphs import reader as graphs
from kfloop.components.ingest.readers.graphs.edges import Edges, edge_facts
from kfloop.core.sections import DataConfig, SplitConfig
from kfloop.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.ingest.source import Source

# 0 - 1 - 2 - 0 is a triangle, 3 - 4 a pair, 5 has only itself.
PAIRS = [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0), (3, 4), (4, 3), (5, 5)]
N = 6


def _arrays(**more: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "edges": np.array(PAIRS),
        "features": np.arange(12, dtype=np.float32).reshape(N, 2),
        "labels": np.array([0, 0, 1, 1, 2, 2]),
    }
    return {name: value for name, value in (arrays | more).items() if value is not None}


def _save(path: Path, **more: Any) -> Path:
    np.savez(path, **_arrays(**more))
    return path


def _open(path: Path, like: Source | None = None, **config: Any) -> Source:
    return graphs.open_source(path, DataConfig(source=str(path), **config), like)


def _rows(source: Source) -> tuple[pa.Table, dict[str, str]]:
    batches = list(source.batches())
    aside = {row["id"]: row["reason"] for batch in batches for row in batch.quarantined}
    return pa.concat_tables([batch.table for batch in batches]), aside


def _pairs(source: Source) -> list[tuple[int, int]]:
    table = source.extras()["edges"]
    return list(zip(table["source"].to_pylist(), table["target"].to_pylist(), strict=True))


def test_an_npz_becomes_nodes_and_edges(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz")
    assert graphs.recognise(path, DataConfig(source=str(path)))
    source = _open(path)
    assert (source.modality, source.task, source.labels, source.n) == ("nodes", "multiclass", ("0", "1", "2"), N)
    assert source.inputs == ("vector", "node")
    assert source.schema["graph"] == {
        "nodes": 6,
        "edges": 9,
        "dangling": 0,
        "self_loops": 1,
        "duplicate_edges": 0,
        "directed": False,
    }
    assert source.suggestions == {"label": "labels"}
    assert _pairs(source) == PAIRS
    table, aside = _rows(source)
    assert aside == {}
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 2)
    assert table["id"].to_pylist() == list("012345")
    assert table["node"].to_pylist() == list(range(N))
    assert table["vector"].to_pylist()[3] == [6.0, 7.0]
    assert table["label"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert table["degree"].to_pylist() == [2, 2, 2, 1, 1, 0]
    assert table["isolated"].to_pylist() == [False] * 5 + [True]
    assert table["self_loop"].to_pylist() == [False] * 5 + [True]


def _csr(name: str, matrix: np.ndarray) -> dict[str, Any]:
    found = sparse.csr_matrix(matrix)
    return {f"{name}_{part}": getattr(found, part) for part in ("data", "indices", "indptr", "shape")}


def test_every_way_to_save_a_graph_gives_the_same_rows_and_edges(tmp_path: Path) -> None:
    adjacency = np.zeros((N, N))
    adjacency[tuple(np.array(PAIRS).T)] = 1
    features = _arrays()["features"]
    ways: list[dict[str, Any]] = [
        {"edges": None, "adjacency": adjacency},
        {"edges": None, "A": adjacency.astype(bool)},
        {"edges": None} | _csr("adj", adjacency),
        {"edges": None, "features": None} | _csr("adj", adjacency) | _csr("attr", features),
        {"edges": None, "edge_index": np.array(PAIRS).T, "features": None, "x": features},
        {"edges": np.array(PAIRS).T, "labels": None, "y": _arrays()["labels"]},
        {"labels": np.eye(3, dtype=np.int64)[_arrays()["labels"]]},
        {"labels": _arrays()["labels"][:, None].astype(float)},
    ]
    table, _ = _rows(_open(_save(tmp_path / "a.npz")))
    for place, way in enumerate(ways):
        source = _open(_save(tmp_path / f"{place}.npz", **way))
        assert sorted(_pairs(source)) == sorted(PAIRS), way
        assert _rows(source)[0].equals(table), way


@pytest.mark.parametrize("masks", ["bool", "ints", "indices"])
def test_masks_are_official_splits_and_the_others_are_the_rest(tmp_path: Path, masks: str) -> None:
    members = {"train_mask": [0, 1], "val_mask": [3], "test_mask": [5]}
    hot = {name: np.isin(np.arange(N), nodes) for name, nodes in members.items()}
    kinds: dict[str, dict[str, Any]] = {
        "bool": hot,
        "ints": {name: mask.astype(int) for name, mask in hot.items()},
        "indices": {name: np.array(nodes) for name, nodes in members.items()},
    }
    table, _ = _rows(_open(_save(tmp_path / "a.npz", **kinds[masks])))
    assert table["split"].to_pylist() == ["train", "train", "rest", "validation", "rest", "test"]


def test_names_and_numbers_as_labels(tmp_path: Path) -> None:
    source = _open(_save(tmp_path / "a.npz", labels=np.array(["b", "b", "a", "a", "c", "c"])))
    assert source.labels == ("a", "b", "c")
    source = _open(_save(tmp_path / "b.npz", labels=np.linspace(0, 1, N)), task="regression")
    assert (source.task, source.labels) == ("regression", ())
    assert _rows(source)[0].schema.field("label").type == pa.float64()
    half = _open(_save(tmp_path / "h.npz", labels=np.array([0, 0, 1, 1, 2, 2], np.float16)))
    assert half.labels == ("0", "1", "2")
    several = np.array([[1, 1], [1, 0], [0, 1], [1, 1], [0, 1], [1, 0]])
    source = _open(_save(tmp_path / "c.npz", labels=several))
    assert (source.task, source.labels) == ("multilabel", ("0", "1"))
    assert _rows(source)[0]["label"].to_pylist()[:3] == [[0, 1], [0], [1]]


def test_dangling_edges_are_set_aside_by_row_and_node(tmp_path: Path) -> None:
    pairs = [*PAIRS, (2, 99), (-1, 3)]
    source = _open(_save(tmp_path / "a.npz", edges=np.array(pairs)))
    assert source.schema["graph"]["dangling"] == 2
    assert source.schema["graph"]["edges"] == 9
    assert _pairs(source) == PAIRS
    table, aside = _rows(source)
    assert table.num_rows == N
    assert aside == {
        "edges:9": "edge 9 of 'edges': target 99 is no node (0 to 5)",
        "edges:10": "edge 10 of 'edges': source -1 is no node (0 to 5)",
    }
    assert "2 dangling edges are set aside, such as: edge 9 of 'edges': target 99" in source.notes[0]


def test_edges_that_count_from_one_are_suspected(tmp_path: Path) -> None:
    source = _open(_save(tmp_path / "a.npz", edges=np.array(PAIRS) + 1))
    assert any("if they count from 1, subtract 1" in note for note in source.notes)


def test_duplicates_and_self_loops_are_counted_and_direction_is_seen(tmp_path: Path) -> None:
    source = _open(_save(tmp_path / "a.npz", edges=np.array([*PAIRS, (0, 1), (0, 1), (3, 3)])))
    graph = source.schema["graph"]
    assert (graph["edges"], graph["duplicate_edges"], graph["self_loops"]) == (12, 2, 2)
    assert not graph["directed"]
    assert _rows(source)[0]["degree"].to_pylist() == [2, 2, 2, 1, 1, 0]
    assert _open(_save(tmp_path / "b.npz", edges=np.array(PAIRS[1:]))).schema["graph"]["directed"]


def test_weights_of_edges(tmp_path: Path) -> None:
    weights = np.arange(9.0) + 1
    source = _open(_save(tmp_path / "a.npz", edge_weight=weights))
    table = source.extras()["edges"]
    assert table.schema == pa.schema({"source": pa.int64(), "target": pa.int64(), "weight": pa.float32()})
    assert table["weight"].to_pylist() == weights.tolist()
    adjacency = np.zeros((N, N))
    adjacency[0, 1], adjacency[2, 3] = 0.5, 2.0
    source = _open(_save(tmp_path / "b.npz", edges=None, adjacency=adjacency))
    assert source.extras()["edges"]["weight"].to_pylist() == [0.5, 2.0]


def test_nodes_without_label_and_their_edges_are_set_aside(tmp_path: Path) -> None:
    source = _open(_save(tmp_path / "a.npz", labels=np.array([0, -1, 1, 1, 0, 0])))
    assert source.labels == ("0", "1")
    table, aside = _rows(source)
    assert aside == {"1": "node 1, 'labels': no label"}
    assert table["node"].to_pylist() == [0, 2, 3, 4, 5]
    assert {node for pair in _pairs(source) for node in pair} <= set(table["node"].to_pylist())
    assert "1 nodes have no label and are set aside" in source.notes
    assert "4 edges of nodes that are left out are left out too" in source.notes
    assert (source.schema["graph"]["nodes"], source.schema["graph"]["edges"]) == (5, 5)


def test_a_limit_keeps_some_nodes_and_the_edges_between_them(tmp_path: Path) -> None:
    source = _open(_save(tmp_path / "a.npz"), limit=4)
    table, aside = _rows(source)
    kept = table["node"].to_pylist()
    assert (len(kept), aside) == (4, {})
    assert _pairs(source) == [pair for pair in PAIRS if set(pair) <= set(kept)]
    assert source.schema["graph"]["nodes"] == 4
    fewer = _rows(_open(tmp_path / "a.npz", limit=2))[0]["node"].to_pylist()
    assert set(fewer) < set(kept)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"edges": None, "adjacency": np.zeros((6, 5))}, r"'adjacency' has shape \[6, 5\]: an adjacency is square"),
        ({"edges": None, "adjacency": np.eye(5)}, "'adjacency' has 5 nodes, 'features' 6"),
        ({"edges": None} | _csr("adj", np.zeros((6, 5))), r"'adj' has shape \[6, 5\]"),
        ({"edges": None, "adjacency": np.where(np.eye(6) > 0, np.nan, 0)}, "weight of edge 0 is nan"),
        ({"labels": np.zeros(5)}, "'labels' has 5 rows, 'features' 6"),
        ({"labels": np.zeros((6, 2, 2))}, r"array 'labels' has shape \[6, 2, 2\]"),
        ({"labels": np.zeros(6, dtype=int)}, "one class only"),
        (
            {"features": np.where(np.arange(12).reshape(6, 2) == 7, np.nan, 1)},
            "array 'features' row 3, column 1 is nan",
        ),
        ({"features": np.full((6, 2), 1e300)}, "array 'features' row 0, column 0 is 1e"),
        ({"features": np.array([["a", "b"]] * 6)}, "array 'features' has type <U1: expected numbers"),
        ({"features": np.zeros((6, 0))}, r"array 'features' has shape \[6, 0\]"),
        ({"features": None}, "has no node features"),
        ({"features": np.zeros((0, 2)), "labels": np.zeros(0)}, "is an empty graph: it has no nodes"),
        ({"edges": np.zeros((0, 2), dtype=int)}, "is an empty graph: 6 nodes and no edges"),
        (
            {"edges": np.array(PAIRS, dtype=float)},
            r"array 'edges' has node ids of type float64, the first edge is \[0.0\] to \[1.0\]",
        ),
        ({"edges": np.zeros((3, 4), dtype=int)}, r"array 'edges' has shape \[3, 4\]: expected \[M, 2\]"),
        ({"edges": np.array(PAIRS) + 50}, "none of the 9 edges has two nodes: edge 0 of 'edges': source 50 is no node"),
        ({"edge_weight": np.ones(3)}, r"'edge_weight' has shape \[3\], 'edges' 9 edges"),
        ({"edge_weight": np.full(9, np.inf)}, "weight of edge 0 is inf"),
        (
            {"train_mask": np.ones(6, bool), "test_mask": np.array([4])},
            "node 4 is both in 'test_mask' and in 'train_mask'",
        ),
        ({"train_mask": np.ones(5, bool)}, r"mask 'train_mask' is bool of shape \[5\]: expected bool \[6\]"),
        ({"train_mask": np.array([2, 6])}, "mask 'train_mask' row 1 is 6, which is no node"),
        ({"labels": np.array([None] * 6, dtype=object)}, "array 'labels' holds Python objects"),
        ({"labels": None}, "has no labels"),
    ],
)
def test_bad_arrays_are_refused_by_name(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    path = _save(tmp_path / "a.npz", **more)
    with pytest.raises(InputError, match=said) as caught:
        _open(path)
    assert caught.value.hint


def test_sparse_features_with_nan_or_outside_their_shape_are_refused(tmp_path: Path) -> None:
    parts = _csr("attr", np.eye(N, 3)) | {"features": None}
    bad = parts | {"attr_data": np.array([1.0, np.nan, 1.0])}
    with pytest.raises(InputError, match="array 'attr' row 1, column 1 is nan"):
        _open(_save(tmp_path / "a.npz", **bad))
    with pytest.raises(InputError, match=r"'attr' column 7 lies outside its shape \[6, 3\]"):
        _open(_save(tmp_path / "b.npz", **(parts | {"attr_indices": np.array([0, 7, 2])})))
    with pytest.raises(InputError, match="the parts of 'attr' do not fit"):
        _open(_save(tmp_path / "c.npz", **(parts | {"attr_indptr": np.array([0, 3])})))
    with pytest.raises(InputError, match="the parts of 'attr' do not fit"):
        _open(_save(tmp_path / "d.npz", **(parts | {"attr_indptr": np.array([0, 2, 1, 3, 3, 3, 3])})))


def test_no_graph_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz", edges=None)
    with pytest.raises(InputError, match="has neither edge_index nor edges nor adjacency"):
        _open(path)
    (tmp_path / "b.npz").write_bytes(b"PK no")
    with pytest.raises(InputError, match="is not an npz file"):
        _open(tmp_path / "b.npz")
    raw = bytearray(_save(tmp_path / "c.npz").read_bytes())
    raw[200:260] = b"\xaa" * 60  # inside the first array
    (tmp_path / "c.npz").write_bytes(bytes(raw))
    with pytest.raises(InputError, match="array 'edges' cannot be read"):
        _open(tmp_path / "c.npz")


def test_a_told_label_array(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.npz", kind=np.array([0, 1] * 3))
    assert _open(path, label="kind").labels == ("0", "1")
    with pytest.raises(InputError, match=r"has no array 'knid' \(data.label\)"):
        _open(path, label="knid")
    with pytest.raises(InputError, match="'forecasting', but the source is a graph"):
        _open(path, task="forecasting")


def test_nothing_can_be_added_to_one_graph_from_outside(tmp_path: Path) -> None:
    base = _open(_save(tmp_path / "a.npz"))
    with pytest.raises(InputError, match="is a graph of its own"):
        _open(tmp_path / "a.npz", like=base)


def test_big_features_come_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = _rows(_open(_save(tmp_path / "a.npz", labels=np.array([0, 0, 1, -1, 0, 1]))))
    monkeypatch.setattr(graphs_nodes, "VECTOR_BYTES_PER_BATCH", 16)
    source = _open(tmp_path / "a.npz")
    assert [batch.table.num_rows for batch in source.batches()] == [2, 1, 2]
    assert _rows(source)[0].combine_chunks().equals(whole.combine_chunks())


def _tables(folder: Path, nodes: str, edges: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(edges)
    return folder


NODES = "id,label,a,b\nann,x,1,2\nbob,y,3,4\ncid,x,5,6.5\n"
EDGES = "source,target\nann,bob\nbob,cid\n"


def test_a_table_of_nodes_and_a_list_of_edges(tmp_path: Path) -> None:
    folder = _tables(tmp_path / "g", NODES, EDGES)
    assert graphs.recognise(folder, DataConfig(source=str(folder)))
    source = _open(folder)
    assert (source.modality, source.labels, source.n) == ("nodes", ("x", "y"), 3)
    assert source.suggestions == {"label": "label"}
    assert _pairs(source) == [(0, 1), (1, 2)]
    assert source.schema["graph"]["directed"]
    table, _ = _rows(source)
    assert table["id"].to_pylist() == ["ann", "bob", "cid"]
    assert table["vector"].to_pylist() == [[1, 2], [3, 4], [5, 6.5]]
    assert table["label"].to_pylist() == [0, 1, 0]


def test_tables_with_group_split_weight_and_other_names(tmp_path: Path) -> None:
    nodes = "node_id;kind;part;team;a\n7;1;train;t1;1\n8;0;;t2;2\n9;1;test;t1;3\n"
    edges = "src;dst;weight\n7;8;0.5\n9;9;2\n8;10;1\n;8;1\n"
    folder = _tables(tmp_path / "g", nodes, edges)
    source = _open(folder, label="kind", group="team", split=SplitConfig(column="part"))
    table, aside = _rows(source)
    assert table["group"].to_pylist() == ["t1", "t2", "t1"]
    assert table["split"].to_pylist() == ["train", "rest", "test"]
    assert source.extras()["edges"]["weight"].to_pylist() == [0.5, 2.0]
    assert aside == {
        "edges.csv:3": "edges.csv row 3: target '10' is no node of nodes.csv",
        "edges.csv:4": "edges.csv row 4: no source",
    }
    assert source.schema["graph"]["dangling"] == 2


def test_a_table_row_without_label_is_set_aside(tmp_path: Path) -> None:
    folder = _tables(tmp_path / "g", NODES + "dan,,1,1\n", EDGES + "cid,dan\n")
    table, aside = _rows(_open(folder))
    assert (table.num_rows, aside) == (3, {"dan": "nodes.csv row 4, 'label': no label"})


@pytest.mark.parametrize(
    ("nodes", "edges", "said"),
    [
        (NODES.replace("3,4", "3,four"), EDGES, "nodes.csv' row 2, column 'b': 'four' is not a finite number"),
        (NODES.replace("3,4", "3,"), EDGES, "nodes.csv' row 2, column 'b': the cell is empty"),
        (NODES.replace("bob", "ann"), EDGES, r"row 2, column 'id': node 'ann' is there twice \(also in row 1\)"),
        (NODES.replace("bob", ""), EDGES, "row 2, column 'id': no id"),
        (NODES.replace("bob", "2.0"), EDGES, "row 2, column 'id': node id '2.0' is a number with a point"),
        (
            NODES,
            EDGES.replace("cid", "3.0"),
            "edges.csv' row 2, column 'target': node id '3.0' is a number with a point",
        ),
        (NODES, "a,b\n1,2\n", "edges.csv' has no column 'source': it has a, b"),
        (NODES.replace("id,", "key,"), EDGES, "nodes.csv' has no column 'id': it has key, label, a, b"),
        (NODES.replace("label", "word"), EDGES, "no column called label"),
        ("id,label\nann,x\nbob,y\n", "source,target\nann,bob\n", "has no feature columns"),
        (NODES.replace(",b\n", ",a\n"), EDGES, "has a column twice"),
        ("id,label,a\n", EDGES, "has no nodes"),
        (NODES, "source,target\n", "3 nodes and no edges"),
        (NODES, "source,target\ndan,eve\n", "edges.csv row 1: source 'dan' is no node"),
        (NODES, "source,target\nann,bob,cid\n", "is not CSV"),
        ("id,label,split,a\nann,x,train,1\nbob,y,tset,2\n", EDGES, "row 2, column 'split': 'tset' is no split"),
    ],
)
def test_bad_tables_are_refused_by_row_and_column(tmp_path: Path, nodes: str, edges: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        _open(_tables(tmp_path / "g", nodes, edges))
    assert caught.value.hint


def _small(path: Path, n: int, label: Any = None, width: int = 2, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ring = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1)
    arrays = {"features": np.full((n, width), n, dtype=np.float32), "edges": ring} | more
    np.savez(path, **(arrays if label is None else arrays | {"y": label}))
    return path


def test_a_folder_of_small_graphs_with_their_own_labels(tmp_path: Path) -> None:
    for place, n in enumerate((3, 4, 5, 3)):
        _small(tmp_path / f"{place}.npz", n, label=place % 2)
    assert graphs.recognise(tmp_path, DataConfig(source=str(tmp_path)))
    source = _open(tmp_path)
    assert (source.modality, source.task, source.labels, source.n) == ("graphs", "multiclass", ("0", "1"), 4)
    assert (source.inputs, source.schema) == (("nodes", "edges"), {"node_features": 2})
    table, aside = _rows(source)
    assert aside == {}
    row = table.to_pylist()[1]
    assert (row["id"], row["label"], row["n_nodes"], row["n_edges"]) == ("1.npz", 1, 4, 4)
    assert row["nodes"] == [4.0] * 8
    assert row["edges"] == [0, 1, 1, 2, 2, 3, 3, 0]
    assert (row["isolated"], row["self_loops"], row["dangling"]) == (0, 0, 0)
    assert table.schema.field("nodes").type == pa.list_(pa.float32())


def test_small_graphs_in_class_subfolders_and_in_splits(tmp_path: Path) -> None:
    for label in ("ring", "rope"):
        for split in ("train", "test"):
            _small(tmp_path / "a" / label / f"{split}.npz", 3)
            _small(tmp_path / "b" / split / f"{label}.npz", 3, label=label)
    assert _open(tmp_path / "a").labels == ("ring", "rope")
    source = _open(tmp_path / "b")
    assert source.labels == ("ring", "rope")
    assert sorted(_rows(source)[0]["split"].to_pylist()) == ["test", "test", "train", "train"]


def test_broken_small_graphs_are_set_aside_and_dangling_edges_counted(tmp_path: Path) -> None:
    for place in range(4):
        _small(tmp_path / f"{place}.npz", 3, label=place % 2)
    _small(tmp_path / "d.npz", 3, label=1, edges=np.array([[0, 1], [2, 2], [1, 9]]))
    _small(tmp_path / "e.npz", 3, label=0, features=np.full((3, 2), np.nan))
    _small(tmp_path / "f.npz", 3, label=0, width=5)
    _small(tmp_path / "g.npz", 3)
    _small(tmp_path / "h.npz", 3, label=[0, 1])
    (tmp_path / "i.npz").write_bytes(b"no zip")
    _small(tmp_path / "j.npz", 3, label=0, edges=np.zeros((1, 2)))
    source = _open(tmp_path)
    table, aside = _rows(source)
    assert source.n == 11
    assert table["id"].to_pylist() == ["0.npz", "1.npz", "2.npz", "3.npz", "d.npz"]
    row = table.to_pylist()[4]
    assert (row["n_edges"], row["isolated"], row["self_loops"], row["dangling"]) == (2, 1, 1, 1)
    assert set(aside) == {f"{name}.npz" for name in "efghij"}
    assert (
        aside["e.npz"]
        == "'e.npz': array 'features' row 0, column 0 is nan: expected a finite number that fits into 32 bits"
    )
    assert aside["f.npz"] == "'features' has 5 columns, other graphs 2"
    assert aside["g.npz"] == "no label: it has edges, features"
    assert aside["h.npz"] == "label 'y' has shape [2]: expected one value"
    assert aside["i.npz"] == "'i.npz' is not an npz file with arrays"
    assert "node ids of type float64" in aside["j.npz"]


def test_a_limit_keeps_some_small_graphs(tmp_path: Path) -> None:
    for place in range(6):
        _small(tmp_path / f"{place}.npz", 3, label=place % 2)
    assert _rows(_open(tmp_path, limit=4))[0].num_rows == 4


def test_fresh_small_graphs_take_the_labels_and_width_of_the_base(tmp_path: Path) -> None:
    for place in range(4):
        _small(tmp_path / "base" / f"{place}.npz", 3, label="ab"[place % 2])
    base = _open(tmp_path / "base")
    _small(tmp_path / "fresh" / "9.npz", 4, label="b")
    assert _rows(_open(tmp_path / "fresh", like=base))[0]["label"].to_pylist() == [1]
    _small(tmp_path / "fresh" / "8.npz", 4, label="c")
    with pytest.raises(
        InputError, match=r"file '8.npz', column 'label': 'c' is a class that data.source does not have"
    ):
        _open(tmp_path / "fresh", like=base)


@pytest.mark.parametrize(
    ("arrays", "fits"),
    [
        ({"X": np.zeros((2, 2)), "y": np.zeros(2)}, False),
        ({"edges": np.zeros((2, 2))}, False),
        ({"adj": np.zeros((2, 2)), "y": np.zeros(2)}, True),
        ({"edge_index": np.zeros((2, 2)), "x": np.zeros(2)}, True),
        ({"adj_data": np.zeros(1), "labels": np.zeros(2)}, False),
    ],
)
def test_recognise_looks_at_names_only(tmp_path: Path, arrays: dict[str, Any], fits: bool) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert graphs.recognise(path, DataConfig(source=str(path))) is fits


def test_recognise_never_raises_and_heeds_the_modality(tmp_path: Path) -> None:
    config = DataConfig(source="x")
    (tmp_path / "a.npz").write_bytes(b"garbage")
    assert not graphs.recognise(tmp_path / "a.npz", config)
    assert not graphs.recognise(tmp_path, config)
    assert not graphs.recognise(tmp_path / "none", config)
    path = _save(tmp_path / "b.npz")
    assert not graphs.recognise(path, DataConfig(source="x", modality="vector"))
    assert not graphs.recognise(_tables(tmp_path / "g", NODES, EDGES), DataConfig(source="x", modality="graphs"))


def test_edge_facts_against_plain_sets() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        n, m = int(rng.integers(1, 12)), int(rng.integers(0, 40))
        pairs = rng.integers(-1, n + 1, (m, 2))
        found = edge_facts(Edges(source=pairs[:, 0], target=pairs[:, 1]), n)
        good = [(int(a), int(b)) for a, b in pairs if 0 <= a < n and 0 <= b < n]
        assert len(found.dangling) == m - len(good)
        assert found.duplicates == len(good) - len(set(good))
        assert found.self_loops == sum(a == b for a, b in good)
        assert found.directed == any((b, a) not in good for a, b in good)
        near = [{b for a, b in good if a == node} | {a for a, b in good if b == node} for node in range(n)]
        assert found.degree.tolist() == [len(nodes - {node}) for node, nodes in enumerate(near)]
        assert found.loops.tolist() == [(node, node) in good for node in range(n)]


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    one = _open(_save(tmp_path / "a.npz")).digest
    assert one == _open(_save(tmp_path / "b.npz")).digest
    assert one != _open(_save(tmp_path / "c.npz", edges=np.array(PAIRS[:-1]))).digest
    first = _open(_tables(tmp_path / "g", NODES, EDGES)).digest
    assert first != _open(_tables(tmp_path / "g", NODES, EDGES + "cid,ann\n")).digest
