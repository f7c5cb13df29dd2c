"""Section ``package``: the export for serving, and which answers a person should look at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kfloop.core.sections.base import Positive, Section


class ReviewConfig(Section):
    """Which answers of a classifier a person should look at."""

    precision: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Precision that the accepted answers of each predicted class shall have, as a share: an answer below its class's confidence threshold is flagged. Null flags nothing."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence level at which each class's threshold, found on the validation rows, holds that precision; and level of the intervals in the report."""


class PackageConfig(Section):
    """Export of the checkpoint for serving."""

    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest difference between torch and ONNX outputs: absolute for probabilities, else in units of the output's largest magnitude."""
    max_batch_size: Positive = 64
    """Largest number of examples in one request to the served model; graphs are asked about one request at a time."""
    calibration: Literal["none", "temperature"] = "none"
    """``temperature`` divides the logits of classes by one number, fitted on the validation rows, in the graph itself: the stated confidence fits better, the classes stay."""
    review: ReviewConfig = ReviewConfig()
    """Which answers are flagged for a person."""
    variants: tuple[Literal["fp16", "int8"], ...] = ()
    """Smaller graphs that are made and compared with the one in single precision; the package holds the served one alone."""
    serve: Literal["fp32", "fp16", "int8"] = "fp32"
    """Which graph is ``model.onnx``: scored, judged by the gate, blessed and served. One of ``variants`` need not be named there, too."""
    variant_tolerance: Annotated[float, Field(gt=0)] = 0.1
    """Largest difference between torch and a variant, measured as ``tolerance``."""
    variant_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Least share of validation rows to which a variant gives the same class as the graph in single precision."""
    variant_rows: Positive = 200
    """Most training rows on which the ranges of ``int8`` are measured."""
