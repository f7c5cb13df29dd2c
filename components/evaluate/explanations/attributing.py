"""What each piece of an input did to an output, by Captum on the served graph as a black box: pieces are covered, and the output is looked at again.

Sources: Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014 (occlusion); Kokhlikyan et al., "Captum: a unified
and generic model interpretability library for PyTorch", 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Output = Callable[[NDArray[Any]], NDArray[Any]]

AT_ONCE = 64  # covered copies in one call


def occlusion(
    output: Output, example: NDArray[Any], window: Sequence[int], stride: Sequence[int], fill: NDArray[Any]
) -> NDArray[np.float64]:
    """How much lower the output is without each place: the mean over the windows that cover it.

    Args:
        output: Takes copies [B, ...] of the example, as float32, and gives [B].
        example: One example, [...].
        window: Size of the piece that is covered, by axis.
        stride: How far it moves, by axis.
        fill: What stands there instead, of the example's shape.

    Returns:
        Attributions of the example's shape, in the unit of the output.
    """
    import torch
    from captum.attr import Occlusion

    found = Occlusion(_forward(output)).attribute(
        torch.from_numpy(np.ascontiguousarray(example, dtype=np.float32))[None],
        sliding_window_shapes=tuple(window),
        strides=tuple(stride),
        baselines=torch.from_numpy(np.ascontiguousarray(fill, dtype=np.float32))[None],
        perturbations_per_eval=AT_ONCE,
    )
    return np.asarray(found[0].numpy(), dtype=np.float64)


def ablation(output: Output, parts: int, *, at_once: int = AT_ONCE) -> NDArray[np.float64]:
    """How much lower the output is without each of several parts.

    Args:
        output: Takes which parts are there, 1 or 0, [B, parts], and gives [B].
        parts: How many there are.
        at_once: Variants in one call.

    Returns:
        Attributions [parts], in the unit of the output.
    """
    import torch
    from captum.attr import FeatureAblation

    found = FeatureAblation(_forward(output)).attribute(torch.ones(1, parts), perturbations_per_eval=at_once)
    return np.asarray(found[0].numpy(), dtype=np.float64)


def _forward(output: Output) -> Callable[[Any], Any]:
    import torch

    return lambda inputs: torch.from_numpy(np.ascontiguousarray(output(inputs.numpy()), dtype=np.float64))
