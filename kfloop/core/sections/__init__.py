"""The sections of ``loop.yaml``, one for each step: what can be told, in which unit, with which default."""

from kfloop.core.sections.about import AboutConfig
from kfloop.core.sections.base import Positive, Section, Seed, Share
from kfloop.core.sections.bless import BlessConfig
from kfloop.core.sections.data import (
    MODALITIES,
    REQUESTS,
    DataConfig,
    DvcConfig,
    Modality,
    RecipeConfig,
    SeriesConfig,
    SplitConfig,
    Task,
)
from kfloop.core.sections.deploy import DeployConfig
from kfloop.core.sections.evaluate import EvaluateConfig
from kfloop.core.sections.external import AdapterConfig, ExternalConfig
from kfloop.core.sections.gate import GateConfig, OverriddenRule
from kfloop.core.sections.labels import LabelsConfig
from kfloop.core.sections.launcher import LauncherConfig
from kfloop.core.sections.monitor import MonitorConfig
from kfloop.core.sections.notify import NotifyConfig
from kfloop.core.sections.package import PackageConfig, ReviewConfig
from kfloop.core.sections.rollout import MarginConfig, RolloutConfig
from kfloop.core.sections.rule import FEWEST_TO_REFUTE, SLICES, Rule
from kfloop.core.sections.serve import EdgeConfig, LogConfig, ServeConfig
from kfloop.core.sections.spark import SparkConfig
from kfloop.core.sections.target import NEEDED_BY_TARGETS, OF_TARGETS, TargetConfig
from kfloop.core.sections.train import FinetuneConfig, SearchConfig, TrainConfig
from kfloop.core.sections.validation import ValidationConfig

__all__ = [
    "FEWEST_TO_REFUTE",
    "MODALITIES",
    "NEEDED_BY_TARGETS",
    "OF_TARGETS",
    "REQUESTS",
    "SLICES",
    "AboutConfig",
    "AdapterConfig",
    "BlessConfig",
    "DataConfig",
    "DeployConfig",
    "DvcConfig",
    "EdgeConfig",
    "EvaluateConfig",
    "ExternalConfig",
    "FinetuneConfig",
    "GateConfig",
    "LabelsConfig",
    "LauncherConfig",
    "LogConfig",
    "MarginConfig",
    "Modality",
    "MonitorConfig",
    "NotifyConfig",
    "OverriddenRule",
    "PackageConfig",
    "Positive",
    "RecipeConfig",
    "ReviewConfig",
    "RolloutConfig",
    "Rule",
    "SearchConfig",
    "Section",
    "Seed",
    "SeriesConfig",
    "ServeConfig",
    "Share",
    "SparkConfig",
    "SplitConfig",
    "TargetConfig",
    "Task",
    "TrainConfig",
    "ValidationConfig",
]
