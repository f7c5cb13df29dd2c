"""``loop.yaml``: one strict, frozen model of everything a loop can be told.

Unknown keys are refused with the nearest valid one. Paths are relative to the folder of the loop file. Each step gets its
own section as one canonical JSON string, because KFP turns the integers inside dict parameters into floats.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from kfloop.core.addresses import secrets_of
from kfloop.core.artifacts import canonical_json, sha256_text
from kfloop.core.cluster import ClusterConfig
from kfloop.core.ground_truth import truth_file
from kfloop.core.sections import (
    OF_TARGETS,
    REQUESTS,
    AboutConfig,
    BlessConfig,
    DataConfig,
    DeployConfig,
    EvaluateConfig,
    GateConfig,
    LabelsConfig,
    MonitorConfig,
    NotifyConfig,
    PackageConfig,
    Rule,
    Section,
    ServeConfig,
    SparkConfig,
    TrainConfig,
    ValidationConfig,
)
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, nearest


class LoopConfig(Section):
    """One loop."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,48}[a-z0-9])?$")]
    """Name of the loop and of its model: lower-case letters, digits, dashes."""
    about: AboutConfig = AboutConfig()
    data: DataConfig = DataConfig()
    validation: ValidationConfig = ValidationConfig()
    labels: LabelsConfig = LabelsConfig()
    train: TrainConfig = TrainConfig()
    package: PackageConfig = PackageConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    bless: BlessConfig = BlessConfig()
    gate: GateConfig = GateConfig()
    deploy: DeployConfig = DeployConfig()
    serve: ServeConfig = ServeConfig()
    monitor: MonitorConfig = MonitorConfig()
    notify: NotifyConfig = NotifyConfig()
    cluster: ClusterConfig = ClusterConfig()
    spark: SparkConfig = SparkConfig()
    state: str = "sqlite:///.kfloop/state.db"
    """SQLAlchemy URL of state: ``sqlite:///FILE`` or ``postgresql://USER:${VARIABLE}@HOST/DATABASE`` (of its own, not MLflow's)."""
    store: str = ".kfloop/store"
    """Folder or fsspec URL (``s3://bucket/path``) of blobs."""
    mlflow: str = "sqlite:///.kfloop/mlflow.db"
    """MLflow tracking and registry URI."""
    requests: Annotated[str, Field(min_length=1)] | None = None
    """Folder or fsspec URL (``s3://bucket/path``) that every server of the loop publishes its request log to, and that the monitor reads;
    null: the log stays in ``.kfloop/requests``, where one server writes it."""

    @field_validator("state", "store", "mlflow", "requests")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        """These travel as parameters and stand in records and logs."""
        if secrets_of(url or ""):
            message = "the address holds a password (not shown): write ${NAME} in its place, the name of an environment variable"
            raise PydanticCustomError("secret", message)
        return url

    @model_validator(mode="after")
    def _can_be_served(self) -> Self:
        kind = self.deploy.target.kind
        if kind != "embedded" and self.train.external is not None:
            message = f"deploy.target {kind} takes the graph of a model, and train.external has none: leave the target embedded"
            raise ValueError(message)
        if kind == "kserve" and not re.fullmatch(r"[a-z][a-z0-9-]*", self.name):
            message = f"name {self.name!r} cannot name an InferenceService: lower-case letters, digits and dashes, a letter first"
            raise ValueError(message)
        return self

    def section(self, key: str) -> Section:
        """The section named ``key``."""
        section = getattr(self, key)
        if not isinstance(section, Section):
            message = f"{key!r} is not a section of the loop file"
            raise TypeError(message)
        return section

    def digest(self) -> str:
        """Content digest of the whole configuration."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))

    @property
    def cluster_root(self) -> Path:
        """The loop's folder on the shared volume of its cluster."""
        return Path(self.cluster.root) / self.name

    def workspace(self, root: Path) -> Workspace:
        """The loop's places, with local paths made absolute under ``root``."""
        return Workspace(
            loop=self.name,
            root=root,
            state=_absolute_url(self.state, root),
            store=_absolute_path(self.store, root),
            mlflow=_absolute_url(self.mlflow, root),
            requests=_absolute_path(self.requests, root) if self.requests else "",
        )


STEP_SECTIONS = {
    "ingest": "data",
    "validate_data": "validation",
    "check_labels": "labels",
    "train": "train",
    "package": "package",
    "incumbent": "deploy",
    "evaluate": "evaluate",
    "bless": "bless",
    "gate": "gate",
    "deploy": "deploy",
    "keep": "deploy",
    "approve": "deploy",
    "monitor": "monitor",
    "notify": "notify",
}


def section_model(step: str) -> type[Section]:
    """The model of the section that ``step`` takes."""
    annotation = LoopConfig.model_fields[STEP_SECTIONS[step]].annotation
    if not (isinstance(annotation, type) and issubclass(annotation, Section)):
        message = f"step {step!r} has no section model"
        raise TypeError(message)
    return annotation


def section_json(config: LoopConfig, step: str) -> str:
    """The section of ``step`` as one canonical JSON string."""
    return canonical_json(config.section(STEP_SECTIONS[step]).model_dump(mode="json"))


def parse_section(step: str, config_json: str) -> Any:
    """The section of ``step`` from the string that ``section_json`` made.

    Raises:
        ConfigError: The string does not describe such a section.
    """
    try:
        return section_model(step).model_validate_json(config_json)
    except ValidationError as error:
        raise first_problem(error, f"the config of step {step!r}", section_model(step)) from error


def kind_of(content: Any) -> str:
    """What YAML found, in the words of a person who wrote it."""
    return {type(None): "nothing", str: "a text", list: "a list", bool: "true or false"}.get(type(content), "a number")


def load_config(path: Path, *, on_cluster: bool = False) -> LoopConfig:
    """Read and check a loop file.

    Args:
        path: The file; paths inside it are taken relative to its folder.
        on_cluster: The loop as it is on its cluster: paths are relative to its folder there, and section ``cluster`` says where state,
            store, MLflow and the request log are.

    Raises:
        ConfigError: No such file, not YAML, an unknown key, or a value out of range.
    """
    import yaml

    if not path.is_file():
        raise ConfigError(
            f"no loop file at '{path}'",
            hint="write one with: kfloop init (or name another with -c PATH)",
            path=str(path),
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not valid YAML: {error}", hint="mend the file at that place") from error
    if not isinstance(content, dict):
        raise ConfigError(f"'{path}' holds {kind_of(content)}, expected keys such as 'name:' and 'data:'")
    try:
        config = LoopConfig.model_validate(content)
    except ValidationError as error:
        found = first_problem(error, f"'{path}'", LoopConfig)
        raise found from (None if found.data["problem"] == "secret" else error)
    here = path.resolve().parent
    if not on_cluster:
        return _resolved(config, here, here)
    places = {
        key: getattr(config.cluster, key) or getattr(config, key) for key in ("state", "store", "mlflow", "requests")
    }
    return _resolved(config.model_copy(update=places), here, config.cluster_root)


def _resolved(config: LoopConfig, here: Path, root: Path) -> LoopConfig:
    """The same configuration with data paths made absolute under ``root`` and derived fields filled; ``here`` is the folder to look into."""
    data = config.data
    changes: dict[str, Any] = {}
    if data.source != "digits" and data.dvc is None:
        changes["source"] = _absolute_path(data.source, root)
    for key in ("fresh", "feedback", "votes", "corrections"):
        value = getattr(data, key)
        if value is not None and not (key == "fresh" and value == REQUESTS):
            changes[key] = _absolute_path(value, root)
    if data.fresh == REQUESTS:
        feedback = str(truth_file(changes.get("feedback"), root))
        changes |= {"fresh": REQUESTS, "feedback": feedback, "places": config.workspace(root).to_json()}
    if data.dvc is not None and (here / data.dvc.repo).is_dir():  # a repository on this disk
        changes["dvc"] = data.dvc.model_copy(update={"repo": _absolute_path(data.dvc.repo, root)})
    suite, requests = config.validation.suite, config.validation.requests
    validation: dict[str, Any] = {
        "suite": suite and _absolute_path(suite, root),
        "requests": requests and _absolute_path(requests, root),
    }
    spark = config.spark
    if spark.folder is not None:
        spark = spark.model_copy(update={"folder": _absolute_path(spark.folder, root)})
    if config.validation.engine == "spark":  # otherwise another master would be another validation
        validation["spark"] = spark
    train, tuned = config.train, config.train.finetune
    if tuned is not None and (here / tuned.model).is_dir():  # a folder, not a name on the hub
        local = tuned.model_copy(update={"model": _absolute_path(tuned.model, root)})
        train = train.model_copy(update={"finetune": local})
    target = config.deploy.target
    places: dict[str, Any] = {
        name: _absolute_path(value, root)
        for name in ("repository", "manifests", "ca")
        if name in OF_TARGETS[target.kind] and (value := getattr(target, name))
    }
    return config.model_copy(
        update={
            "train": train,
            "spark": spark,
            "data": data.model_copy(update=changes),
            "validation": config.validation.model_copy(update=validation),
            "monitor": config.monitor.model_copy(
                update={
                    "fresh": changes.get("fresh"),
                    "feedback": str(truth_file(changes.get("feedback"), root)),
                    "unlogged": tuple(sorted({*config.serve.log.hash, *config.serve.log.drop})),
                    "window_days": data.recipe.window_days,
                    "spark": spark if config.monitor.engine == "spark" else config.monitor.spark,
                }
            ),
            "deploy": config.deploy.model_copy(
                update={
                    "about": config.about,
                    "feedback": str(truth_file(changes.get("feedback"), root)),
                    "target": target.model_copy(update=places),
                }
            ),
        }
    )


def _absolute_path(path: str, root: Path) -> str:
    if "://" in path or path.startswith(("sample:", "${")):
        return path
    return str((root / Path(path).expanduser()).resolve())


def _absolute_url(url: str, root: Path) -> str:
    prefix = "sqlite:///"
    if url.startswith(prefix) and not url.startswith(prefix + "/"):
        return prefix + str((root / url.removeprefix(prefix)).resolve())
    return url


def first_problem(error: ValidationError, where: str, model: type[BaseModel]) -> ConfigError:
    """The first problem pydantic found, in words, with the nearest valid key for an unknown one."""
    # A misspelt key also leaves the right one missing: the misspelling is what helps.
    problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in problem["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        owner = _model_at(model, problem["loc"][:-1])
        return ConfigError(
            f"{where}: unknown key '{place}'{more}", hint=nearest(key, owner.model_fields), key=place, problem="unknown"
        )
    if problem["type"] == "missing":
        return ConfigError(f"{where}: '{place}' is missing{more}", hint=f"add '{place}:'", key=place, problem="missing")
    if problem["type"] == "secret":  # what stands there may be one: it is never repeated
        return ConfigError(f"{where}: '{place}': {problem['msg']}{more}", key=place, problem="secret")
    told = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # the message of kfloop's own check quotes what is wrong
        return ConfigError(f"{where}: '{place}': {told}{more}", key=place, problem=problem["type"])
    if place == "name":
        hint = "take lower-case letters, digits, dashes and underscores, such as my-loop: at most 50, a letter or digit first and last"
        return ConfigError(
            f"{where}: 'name' is {problem['input']!r}{more}", hint=hint, key=place, problem=problem["type"]
        )
    return ConfigError(f"{where}: '{place}' is {problem['input']!r}: {told}{more}", key=place, problem=problem["type"])


def _model_at(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The section model at ``place`` inside ``model``; the last one known where the path leaves the models."""
    for part in place:
        if isinstance(part, int):
            return Rule
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        for choice in (annotation, *get_args(annotation)):  # a section that may be null is a union
            if isinstance(choice, type) and issubclass(choice, BaseModel):
                model = choice
    return model
