"""Graph encoders and networks: what they see, what they must not see, and that the exported graph answers alike."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from kfloop.components.ingest.ingestion import run as ingest
from kfloop.components.package.exporting import export_network
from kfloop.core.encoding import fit_encoder, restore_encoder
from kfloop.core.encoding.nodes import NodeExamples, feature_facts, undirected
from kfloop.core.families import NetworkSpec, build_network, family_module
from kfloop.core.families.heads import Served
from kfloop.core.learning.plan import Batch, Plan
from kfloop.core.learning.supervised import Supervised
from kfloop.core.sections import DataConfig
from kfloop.core.signature import OUTPUTS, Port, Signature
from kfloop.core.versions import DatasetVersion, read_version
from kfloop.core.workspace import Workspace
from kfloop.errors import InputError

KINDS = ("gcn", "sage", "gin")


def ingested(source: Path, **told: Any) -> DatasetVersion:
    out = source.parent / "version"
    out.mkdir()
    places = {"state": f"sqlite:///{source.parent}/state.db", "store": str(source.parent / "store"), "mlflow": ""}
    ingest(DataConfig(source=str(source), **told), out=out, workspace=Workspace(loop="g", root=source.parent, **places))
    return read_version(out)


@pytest.fixture
def papers(tmp_path: Path) -> DatasetVersion:
    """200 nodes of two kinds that cite their own kind; features say little, neighbours much."""
    random = np.random.default_rng(0)
    n = 200
    labels = random.integers(0, 2, n)
    source, target = random.integers(0, n, (2, 6000))
    kept = (labels[source] == labels[target]) | (random.random(6000) < 0.1)
    features = (random.random((n, 12)) < np.where(labels[:, None] == np.arange(12) % 2, 0.25, 0.15)).astype(np.float32)
    part = random.permutation(n)
    np.savez(
        tmp_path / "papers.npz",
        edges=np.stack([source[kept], target[kept]], axis=1)[:900],
        features=features,
        labels=labels,
        train_mask=part < 60,
        val_mask=(part >= 60) & (part < 100),
        test_mask=(part >= 100) & (part < 180),
    )
    return ingested(tmp_path / "papers.npz")


@pytest.fixture
def molecules(tmp_path: Path) -> DatasetVersion:
    """80 small graphs, rings or paths, of different sizes; the features of their nodes say nothing."""
    random = np.random.default_rng(1)
    for number in range(80):
        n, ring = int(random.integers(3, 9)), number % 2 == 0
        path = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
        edges = np.concatenate([path, [[n - 1, 0]]]) if ring else path
        folder = tmp_path / "molecules" / ("ring" if ring else "path")
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"g{number}.npz", edges=edges, features=random.normal(size=(n, 1)).astype(np.float32))
    return ingested(tmp_path / "molecules")


def spec_of(version: DatasetVersion, objective: str = "classification", **options: Any) -> NetworkSpec:
    encoder = fit_encoder(version)
    checked = family_module("gnn").Options.model_validate(options).model_dump(mode="json")
    facts = {"target_mean": 3.0, "target_std": 2.0} if objective == "regression" else {}
    return NetworkSpec(
        family="gnn",
        objective=objective,
        modality=version.modality,
        inputs=encoder.ports,
        labels=() if objective == "regression" else ("a", "b", "c")[: 3 if objective == "multilabel" else 2],
        facts=encoder.facts | facts,
        options=checked,
    )


def trained(version: DatasetVersion, spec: NetworkSpec, steps: int, rate: float) -> tuple[torch.nn.Module, float]:
    """The network after some steps on all training rows at once, and its accuracy on the test rows."""
    torch.manual_seed(0)
    encoder = fit_encoder(version)
    plan = Plan(epochs=1, batch_size=1, learning_rate=rate, weight_decay=0.01, patience=1, seed=0, total_steps=steps)
    learner = Supervised(build_network(spec), spec, plan)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=rate)
    train = encoder.examples(version, "train", spec.objective)
    rows = np.arange(len(train))
    batch = Batch(
        inputs=tuple(torch.from_numpy(array) for array in train.batch_inputs(rows)),
        rows=torch.from_numpy(train.batch_rows(rows)),
        target=torch.from_numpy(train.target.copy()),
        weight=torch.ones(len(train)),
        scale=torch.tensor(1.0),
    )
    for _ in range(steps):
        optimizer.zero_grad()
        learner.losses(batch).mean().backward()
        optimizer.step()
    test = encoder.examples(version, "test", spec.objective)
    rows = np.arange(len(test))
    with torch.no_grad():
        answer = learner.eval().network(*(torch.from_numpy(array) for array in test.batch_inputs(rows)))[0]
    found = answer.numpy()[test.batch_rows(rows)].argmax(1)
    return learner.network, float((found == test.target).mean())


def test_nodes_see_the_whole_graph_and_their_own_labels_alone(papers: DatasetVersion) -> None:
    encoder = fit_encoder(papers)
    train, test = (encoder.examples(papers, split, "classification") for split in ("train", "test"))
    assert isinstance(train, NodeExamples)
    assert (len(train), len(test)) == (60, 80)
    node, edges = train.batch_inputs(np.arange(3))
    assert node.shape == (200, 12)  # the 20 nodes outside of all masks are there too
    assert np.array_equal(edges, test.inputs[1])
    assert edges.min() >= 0
    assert edges.max() < 200
    # Every row's features stand where batch_rows says.
    table = papers.table("test", ["vector"])["vector"].to_pylist()
    assert np.array_equal(node[test.batch_rows(np.arange(80))], np.array(table, np.float32))
    part = train.take(train.target == 1)
    assert set(part.target.tolist()) == {1}
    assert np.array_equal(part.batch_rows(np.array([0])), train.batch_rows(np.flatnonzero(train.target == 1)[:1]))
    assert part.batch_inputs(np.array([0]))[0] is node


def test_edges_of_nodes_are_made_undirected_once_and_without_loops(papers: DatasetVersion) -> None:
    edges = fit_encoder(papers).examples(papers, "train", "classification").inputs[1]
    pairs = set(map(tuple, edges.T.tolist()))
    assert len(pairs) == edges.shape[1]
    assert all((b, a) in pairs and a != b for a, b in pairs)
    assert undirected(np.array([[0, 1, 1, 2], [1, 0, 1, 1]])).tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert undirected(np.array([[3], [3]])).shape == (2, 0)


def test_facts_of_features() -> None:
    counts = feature_facts(np.array([[0, 0, 1], [0, 2, 0]], np.float32))
    assert counts["counts"] is True
    assert counts["mean"][0] == 0.0  # never changes: keeps its value
    assert counts["std"][0] == 1.0
    assert feature_facts(np.array([[-1.0], [1.0]], np.float32)) == {"mean": [0.0], "std": [1.0], "counts": False}


def test_encoders_come_back_from_plain_values(papers: DatasetVersion) -> None:
    encoder = fit_encoder(papers)
    again = restore_encoder(encoder.plain())
    for one, other in zip(
        encoder.examples(papers, "test", "classification").inputs,
        again.examples(papers, "test", "classification").inputs,
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert again.ports == encoder.ports
    assert not again.batched


def test_nodes_of_another_width_are_refused(papers: DatasetVersion) -> None:
    encoder = restore_encoder(fit_encoder(papers).plain() | {"width": 5})
    with pytest.raises(InputError, match="12 features each, but the model takes 5"):
        encoder.encode(papers.table("test"))


def test_graphs_of_a_batch_are_separate_parts(molecules: DatasetVersion) -> None:
    encoder = fit_encoder(molecules)
    examples = encoder.examples(molecules, "train", "classification")
    rows = np.array([5, 0, 3])
    node, edges, graph, sizes = examples.batch_inputs(rows)
    assert sizes.tolist() == [examples.inputs[3][row] for row in rows]
    assert graph.tolist() == np.repeat([0, 1, 2], sizes).tolist()
    assert len(node) == sizes.sum()
    assert (graph[edges[0]] == graph[edges[1]]).all()
    for place, row in enumerate(rows):  # each part is the graph of its row
        alone = examples.batch_inputs(np.array([row]))
        inside = graph[edges[0]] == place
        assert np.array_equal(edges[:, inside] - sizes[:place].sum(), alone[1])
    whole = encoder.encode(molecules.table("train"))
    assert np.array_equal(examples.take(np.arange(len(examples))).batch_inputs(np.arange(len(examples)))[1], whole[1])
    assert examples.batch_rows(rows).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_are_learned_from_their_neighbours(papers: DatasetVersion, kind: str) -> None:
    assert trained(papers, spec_of(papers, kind=kind, dropout=0.2), 60, 0.02)[1] > 0.85


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_a_little_less_precise(papers: DatasetVersion, kind: str) -> None:
    spec = spec_of(papers, kind=kind)
    torch.manual_seed(0)
    network = build_network(spec).eval()
    examples = fit_encoder(papers).examples(papers, "test", spec.objective)
    inputs = [torch.from_numpy(array) for array in examples.batch_inputs(np.arange(len(examples)))]
    with torch.no_grad():
        whole = network(*inputs)[0]
        with torch.autocast("cpu", torch.bfloat16):
            half = network(*inputs)[0]
    torch.testing.assert_close(half.float(), whole, rtol=0.1, atol=0.1)


def test_graphs_are_told_apart_by_their_edges_alone(molecules: DatasetVersion) -> None:
    assert trained(molecules, spec_of(molecules), 60, 0.01)[1] > 0.9


def test_an_edge_to_no_node_or_to_itself_changes_nothing(papers: DatasetVersion) -> None:
    node, edges = fit_encoder(papers).examples(papers, "test", "classification").inputs
    odd = np.concatenate([edges, [[-1, 3, 7, 10**6], [2, 200, 7, 10**6]]], axis=1)
    for kind in KINDS:
        network = build_network(spec_of(papers, kind=kind)).eval()
        with torch.no_grad():
            one = network(torch.from_numpy(node), torch.from_numpy(edges))[0]
            other = network(torch.from_numpy(node), torch.from_numpy(odd))[0]
        assert torch.equal(one, other)


def test_gcn_is_the_published_formula(papers: DatasetVersion) -> None:
    node, edges = fit_encoder(papers).examples(papers, "test", "classification").inputs
    network = build_network(spec_of(papers, kind="gcn")).eval()
    adjacency = np.eye(len(node))
    adjacency[edges[0], edges[1]] = 1
    scale = 1 / np.sqrt(adjacency.sum(1))
    spread = scale[:, None] * adjacency * scale
    values = node / np.maximum(node.sum(1, keepdims=True), 1e-9)
    layer, head = network.body.layers[0], network.head.linear
    weights = [part.detach().numpy().astype(np.float64) for part in (layer.project.weight, head.weight, head.bias)]
    hidden = np.maximum(spread @ values @ weights[0].T, 0)
    expected = spread @ hidden @ weights[1].T + weights[2]
    with torch.no_grad():
        answer = network(torch.from_numpy(node), torch.from_numpy(edges))[0]
    np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_regression_answers_in_the_unit_of_the_label(papers: DatasetVersion) -> None:
    node, edges = fit_encoder(papers).examples(papers, "test", "classification").inputs
    answer, embedding = build_network(spec_of(papers, "regression")).eval()(
        torch.from_numpy(node), torch.from_numpy(edges)
    )
    assert answer.shape == (200,)
    assert embedding.shape == (200, 64)
    assert abs(float(answer.detach().mean()) - 3.0) < 3.0


def exported(spec: NetworkSpec, network: torch.nn.Module, example: Any, path: Path) -> onnxruntime.InferenceSession:
    outputs = (
        Port(name=OUTPUTS[spec.objective][0], dtype="float32", shape=(-1,)),
        Port(name="embedding", dtype="float32", shape=(-1, 64)),
    )
    signature = Signature(
        objective=spec.objective,
        modality=spec.modality,
        family="gnn",
        inputs=spec.inputs,
        outputs=outputs,
        labels=spec.labels,
        max_batch_size=0,
    )
    export_network(Served(network, spec.objective), signature, example, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def require_parity(network: torch.nn.Module, objective: str, session: Any, inputs: tuple[Any, ...]) -> None:
    with torch.no_grad():
        expected = Served(network, objective).eval()(*(torch.from_numpy(array) for array in inputs))
    names = [port.name for port in session.get_inputs()]
    observed = session.run(None, dict(zip(names, inputs, strict=True)))
    for one, other in zip(expected, observed, strict=True):
        np.testing.assert_allclose(one.numpy(), other, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_export(papers: DatasetVersion, kind: str, tmp_path: Path) -> None:
    spec = spec_of(papers, kind=kind)
    network = build_network(spec).eval()
    example = fit_encoder(papers).examples(papers, "test", "classification").inputs
    session = exported(spec, network, example, tmp_path / "model.onnx")
    random = np.random.default_rng(0)
    for nodes, edges in ((200, None), (1, 0), (1, 1), (2, 1), (7, 30), (32, 100)):
        inputs = (
            example
            if edges is None
            else (
                random.random((nodes, 12), dtype=np.float32),
                random.integers(-1, nodes + 1, (2, edges)),
            )
        )
        require_parity(network, spec.objective, session, inputs)


@pytest.mark.parametrize(
    ("kind", "pooling", "objective"), [("gin", "sum", "multilabel"), ("gcn", "mean", "regression")]
)
def test_graphs_export(molecules: DatasetVersion, kind: str, pooling: str, objective: str, tmp_path: Path) -> None:
    spec = spec_of(molecules, objective, kind=kind, pooling=pooling)
    network = build_network(spec).eval()
    examples = fit_encoder(molecules).examples(molecules, "train", "classification")
    session = exported(spec, network, examples.batch_inputs(np.arange(6)), tmp_path / "model.onnx")
    for count in (1, 2, 7, 32):
        require_parity(network, objective, session, examples.batch_inputs(np.arange(count)))
    nothing = (np.zeros((2, 1), np.float32), np.zeros((2, 0), np.int64), np.array([0, 2]), np.array([1, 0, 1]))
    require_parity(network, objective, session, nothing)  # graphs without edges, and one without nodes
