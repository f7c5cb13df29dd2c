"""A small classifier, quickly trained in a plain loop: judges samples, and shows what can be learned from them.

Nothing is checkpointed or tracked: it costs less to train again than to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.families import NetworkSpec, build_network, family_module
from kfloop.core.signature import Port

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAMILY = "cnn"
BATCH = 64
EPOCHS = 12
STEPS = 900  # at most: about a minute of one core at 28 x 28
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
AT_ONCE = 1024


def train_classifier(images: NDArray[np.uint8], labels: NDArray[np.int64], *, n_classes: int, seed: int) -> Any:
    """A ``cnn`` in evaluation mode, trained for a fixed number of steps with AdamW and a one-cycle rate.

    Args:
        images: uint8 [N, H, W, C].
        labels: Class of each, int64 [N].
        n_classes: Number of classes.
        seed: Seed of weights, order and dropout.
    """
    import torch

    rows = len(labels)
    steps = min(STEPS, EPOCHS * -(-rows // BATCH))
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(_spec(images, n_classes)).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
        order = np.concatenate([generator.permutation(rows) for _ in range(-(-steps * BATCH // rows))])
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            logits = network(torch.from_numpy(np.ascontiguousarray(images[chosen])))[0]
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[chosen]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return network.eval()


def look(network: Any, images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The class the network sees in each image, int64 [N], and its features, float32 [N, D]."""
    import torch

    classes, features = [], []
    with torch.inference_mode():
        for start in range(0, len(images), AT_ONCE):
            logits, embedding = network(torch.from_numpy(np.ascontiguousarray(images[start : start + AT_ONCE])))
            classes.append(logits.argmax(1).numpy())
            features.append(embedding.numpy())
    return np.concatenate(classes), np.concatenate(features)


def _spec(images: NDArray[np.uint8], n_classes: int) -> NetworkSpec:
    shape = tuple(int(size) for size in images.shape[1:])
    some = images[:: max(1, len(images) // 2000)].reshape(-1, shape[-1])
    return NetworkSpec(
        family=FAMILY,
        objective="classification",
        modality="image",
        inputs=(Port(name="image", dtype="uint8", shape=shape),),
        labels=tuple(str(label) for label in range(n_classes)),
        facts={"mean": some.mean(0).tolist(), "std": np.maximum(some.std(0), 1.0).tolist()},
        options=family_module(FAMILY).Options().model_dump(mode="json"),
    )
