"""Each known trap of exporting, planted into a network: it is refused with its reason, or it is exported rightly; none passes wrongly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - everybody calls it so

from kfloop.components.package import exporting
from kfloop.components.package.exporting import check_nodes, export_network
from kfloop.components.package.proving import BATCH_SIZES, Parity, check_parity
from kfloop.core.families.heads import Served
from kfloop.core.scoring import open_session, run_session
from kfloop.core.signature import Port, Signature
from kfloop.errors import TerminalError

SHAPE = (8, 8, 1)
TOLERANCE = 1e-4
GROUPS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
SIGNATURE = Signature(
    objective="classification",
    modality="image",
    family="trap",
    inputs=(Port(name="image", dtype="uint8", shape=SHAPE),),
    outputs=(
        Port(name="probabilities", dtype="float32", shape=(10,)),
        Port(name="embedding", dtype="float32", shape=(8,)),
    ),
    labels=tuple(map(str, range(10))),
    max_batch_size=64,
)
Spoil = Callable[["Trap", Tensor, Tensor], Tensor]


class Trap(nn.Module):
    """A linear classifier whose embedding goes through ``spoil``."""

    def __init__(self, spoil: Spoil) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.embed = nn.Linear(64, 10), nn.Linear(64, 8)
        self.memory = nn.GRU(8, 8, batch_first=True)
        self.register_buffer("table", torch.randn(5, 8))
        self.register_buffer("precise", torch.full((8,), 0.1, dtype=torch.float64))
        self.spoil = spoil

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.flatten(1).to(torch.float32) / 255
        embedding = self.embed(pixels)
        return self.head(pixels), self.spoil(self, embedding, image)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def export(spoil: Spoil, path: Path) -> Served:
    served = Served(Trap(spoil), "classification").eval()
    export_network(served, SIGNATURE, (images(3),), path)
    return served


def judge(spoil: Spoil, folder: Path) -> list[Parity]:
    """What the package step does with such a network."""
    served = export(spoil, folder / "model.onnx")
    proofs = [(images(32)[:size],) for size in BATCH_SIZES]
    return check_parity(served, folder / "model.onnx", SIGNATURE, proofs, TOLERANCE)


def scatter(name: str, start: float, *, include: bool) -> Spoil:
    def spoil(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
        first = torch.full_like(embedding, start)
        return first.scatter_reduce(1, GROUPS.expand_as(embedding), embedding, name, include_self=include)

    return spoil


def packed(net: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    lengths = (image.flatten(1)[:, 0] % 4 + 1).to(torch.int64).cpu()
    steps = embedding.unsqueeze(1).expand(-1, 4, -1)
    rows = nn.utils.rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
    return net.memory(rows)[1][0]


def one_by_one(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    return torch.stack([embedding[row] for row in range(embedding.shape[0])])


def changing_itself(net: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    net.precise += 1
    return embedding * net.precise.float()


def by_values(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    return embedding * 2 if embedding.sum() > 0 else embedding - 1


def by_size(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    return embedding * 2 if embedding.shape[0] > 5 else embedding - 1


def unbounded(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    return torch.where(image.flatten(1)[:, :1] > 200, torch.log(-torch.ones_like(embedding)), embedding)


REFUSED: dict[str, tuple[Spoil, str]] = {
    "mean without itself": (scatter("mean", 0.0, include=False), "'embedding' differs from torch by .* batch size 1"),
    "mean with itself": (scatter("mean", 1.0, include=True), "'embedding' differs from torch by"),
    "packed sequence": (packed, "cannot export this network"),
    "noise inside": (lambda _, e, __: e + torch.randn_like(e), r"draws random numbers \(RandomNormalLike\)"),
    "uniform noise": (lambda _, e, __: e + torch.rand(8), r"draws random numbers \(RandomUniform"),
    "dropout in evaluation": (
        lambda _, e, __: F.dropout(e, 0.5, training=True),
        "when the same examples are asked again",
    ),
    "a network that changes": (changing_itself, "when the same examples are asked again"),
    "rows in a Python loop": (one_by_one, r"fails on inputs .* \(batch size 1\)"),
    "batch size as a number": (
        lambda _, e, __: e + torch.zeros(int(e.shape[0]), 8),
        r"fails on inputs .* \(batch size 1\)",
    ),
    "batch size through numpy": (
        lambda _, e, __: e + torch.from_numpy(np.zeros((len(e), 8), np.float32)),
        r"fails on inputs .* \(batch size 1\)",
    ),
    "a fixed batch size": (lambda _, e, __: e.reshape(3, 8), r"the network itself fails on inputs of shape \[1, 8"),
    "batch norm in training": (
        lambda _, e, __: F.batch_norm(e, None, None, training=True),
        "the network itself fails on inputs of shape .* more than 1 value",
    ),
    "mean of the batch": (lambda _, e, __: e - e.mean(0, keepdim=True), "when others are in the batch"),
    "size of the batch": (
        lambda _, e, __: e + torch.where(torch.tensor(e.shape[0]) > 5, 1.0, 0.0),
        "when others are in the batch",
    ),
    "control flow by size": (by_size, "when others are in the batch"),
    "control flow by values": (by_values, "cannot export this network .*data-dependent"),
    "double precision": (lambda net, e, __: e * net.precise, "'embedding' is float64, the signature says float32"),
    "not finite, sometimes": (unbounded, "'embedding' is not finite in 2 of 7 answers"),
}


@pytest.mark.slow
@pytest.mark.parametrize("trap", REFUSED)
def test_a_planted_trap_is_refused_with_its_reason(trap: str, tmp_path: Path) -> None:
    spoil, reason = REFUSED[trap]
    with pytest.raises(TerminalError, match=reason) as caught:
        judge(spoil, tmp_path)
    assert caught.value.hint
    assert "\x1b" not in caught.value.message


def index_by_number(net: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    def body(number: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        return number - 1, carried + net.table[number.item()]

    return torch._higher_order_ops.while_loop(lambda number, _: number > 0, body, (torch.tensor(4), embedding))[1]


def index_by_select(net: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    def body(number: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        return number - 1, carried + net.table.index_select(0, number.reshape(1))

    return torch._higher_order_ops.while_loop(lambda number, _: number > 0, body, (torch.tensor(4), embedding))[1]


def input_changed(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    image.add_(1)
    return embedding + image.flatten(1)[:, :8].float() / 255


def part_changed(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    embedding[:, :4].mul_(2)
    return embedding


RIGHT_OR_REFUSED: dict[str, Spoil] = {
    "amax without itself": scatter("amax", 1.0, include=False),
    "amin without itself": scatter("amin", 0.0, include=False),
    "sum without itself": scatter("sum", 1.0, include=False),
    "masked scatter": lambda _, e, __: torch.zeros_like(e).masked_scatter(e > 0, e * 2),
    "masked scatter of another mask": lambda _, e, image: e.masked_scatter(
        image.flatten(1)[:, :8] > 128, torch.arange(8.0).expand_as(e) + e
    ),
    "index by a traced number": index_by_number,
    "index by select": index_by_select,
    "input changed in place": input_changed,
    "part changed in place": part_changed,
    "double inside": lambda net, e, __: (e * net.precise).float(),
    "batch size through an item": lambda _, e, __: e + torch.ones(int(torch.tensor(e.shape[0]).item()), 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("trap", RIGHT_OR_REFUSED)
def test_what_some_exporters_get_wrong_is_right_or_refused(trap: str, tmp_path: Path) -> None:
    """Judged by torch on other rows and other sizes than those of the proof."""
    try:
        judge(RIGHT_OR_REFUSED[trap], tmp_path)
    except TerminalError:
        return
    served = Served(Trap(RIGHT_OR_REFUSED[trap]), "classification").eval()
    session = open_session(tmp_path / "model.onnx", threads=1)
    for size in (1, 5, 50):
        rows = images(size, seed=9)
        with torch.inference_mode():
            probabilities, embedding = served(torch.from_numpy(rows.copy()))
        found = run_session(session, SIGNATURE, (rows,))
        np.testing.assert_allclose(found["probabilities"], probabilities.numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(found["embedding"], embedding.numpy(), rtol=TOLERANCE, atol=10 * TOLERANCE)


def plain(_: Trap, embedding: Tensor, image: Tensor) -> Tensor:
    return embedding


def test_a_graph_that_does_not_fit_into_one_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LIMIT_BYTES", 1000)
    with pytest.raises(TerminalError, match="GiB of weights, and one ONNX file holds at most"):
        export(plain, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_weights_beside_the_graph_are_refused(tmp_path: Path) -> None:
    export(plain, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
    split = onnx.load(tmp_path / "split.onnx", load_external_data=False)
    with pytest.raises(TerminalError, match="keeps weights in other files"):
        exporting._check_size(split)


def test_a_graph_that_is_right_at_the_size_of_the_example_alone_is_caught(tmp_path: Path) -> None:
    """The exported graph is changed so that from the fourth row on the answers are those of the first three."""
    served = export(plain, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    graph = model.graph
    last = next(node for node in graph.node if "embedding" in node.output)
    last.output[list(last.output).index("embedding")] = "right"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "zero"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([3], np.int64), "three"))
    nodes = [
        ("Slice", ["right", "zero", "three", "zero"], ["first"]),
        ("ReduceMean", ["first"], ["level"]),
        ("Slice", ["right", "three", "limit", "zero"], ["rest"]),
        ("Mul", ["rest", "level"], ["spoilt"]),
    ]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1 << 40], np.int64), "limit"))
    graph.node.extend(onnx.helper.make_node(kind, inputs, outputs) for kind, inputs, outputs in nodes)
    graph.node.append(onnx.helper.make_node("Concat", ["first", "spoilt"], ["embedding"], axis=0))
    onnx.save(model, tmp_path / "model.onnx")
    check_nodes(tmp_path / "model.onnx")
    proofs = [(images(32)[:size],) for size in BATCH_SIZES]
    assert check_parity(served, tmp_path / "model.onnx", SIGNATURE, proofs[:2], TOLERANCE)
    with pytest.raises(TerminalError, match=r"'embedding' differs from torch by .* at batch size 7"):
        check_parity(served, tmp_path / "model.onnx", SIGNATURE, proofs, TOLERANCE)
