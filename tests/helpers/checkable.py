"""A KFP pipeline of somebody who does not know kfloop, sound in every way, or with faults that KFP's compiler lets through."""

from pathlib import Path
from typing import Any, NamedTuple

from kfp import dsl, kubernetes
from kfp.compiler import Compiler

IMAGE = "registry.example/churn/steps@sha256:" + "0123456789abcdef" * 4


def churn(file: Path, *faults: str) -> Path:  # noqa: C901, PLR0915 - one pipeline, and each fault where it belongs
    """Compile the pipeline ``churn`` to ``file``, with the faults named."""

    def has(fault: str) -> bool:
        return fault in faults

    step = dsl.component(base_image=IMAGE, install_kfp_package=False)
    installing = dsl.component(base_image=IMAGE, install_kfp_package=False, packages_to_install=["pandas"])
    tagged = dsl.component(base_image="python:3.12", install_kfp_package=False)
    unreleased = dsl.component(base_image="registry.example/churn/steps:1.2-unreleased", install_kfp_package=False)

    @step
    def extract(limit: int, table: dsl.Output[dsl.Dataset]) -> NamedTuple(
        "Read", [("verdict", str), ("regions", list)]
    ):  # type: ignore[valid-type]
        from churn.extracting import extract

        return extract(limit, table.path)

    def fit(table: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]) -> str:
        from churn.fitting import fit

        return fit(table.path, model.path)

    decorator = installing if has("packages") else tagged if has("tag") else unreleased if has("unreleased") else step
    fit = decorator(fit)

    @step
    def regions() -> list:
        return ["north", "south"]

    @step
    def score(region: str) -> float:
        return 1.0 if region else 0.0

    @step
    def connect(api_token: str) -> str:
        return api_token

    @step
    def deploy_model(model: dsl.Input[dsl.Model]) -> str:
        return model.uri

    @step
    def warm_up(region: str) -> None:
        print(region)  # noqa: T201

    @step
    def tell(status: dsl.PipelineTaskFinalStatus) -> str:
        return status.state

    def given(task: Any, *, pure: bool = True) -> Any:
        """What every pod needs, but for the faults, which are those of ``fit``."""
        task.set_caching_options(pure)
        hit = task.name.startswith("fit")
        if not (hit and has("no memory limit")):
            task.set_memory_limit("2Gi")
        task.set_cpu_request("500m").set_cpu_limit("1").set_memory_request("1Gi")
        if not (hit and has("no timeout")):
            kubernetes.set_timeout(task, 600)
        if not (hit and has("no user")):
            kubernetes.set_security_context(task, run_as_user=0 if hit and has("root") else 1000, run_as_group=1000)
        return task

    @dsl.pipeline
    def training_without_parameters(table: dsl.Input[dsl.Dataset]) -> dsl.Model:
        return given(fit(table=table)).outputs["model"]

    @dsl.pipeline
    def training(table: dsl.Input[dsl.Dataset], limit: int) -> dsl.Model:
        given(score(region=f"{limit}"))
        task = given(fit(table=table)).set_retry(2)
        if has("gpu") or has("gpu without shm"):
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        if has("gpu"):
            kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory")  # noqa: S108
        if has("secret variable"):
            task.set_env_variable("WAREHOUSE_PASSWORD", "hunter2")
        if has("key in variable"):
            task.set_env_variable("CREDENTIAL_OF_S3", "AKIA" + "ABCDEFGHIJKLMNOP")
        return task.outputs["model"]

    deadline = None if has("no deadline") else 7200

    @dsl.pipeline(name="churn", pipeline_config=dsl.PipelineConfig(active_deadline_seconds=deadline))
    def pipeline(limit: int = 1000, token_count: int = 3) -> None:
        message = given(tell(), pure=has("cached exit handler"))
        if has("retried exit handler"):
            message.set_retry(3)
        with dsl.ExitHandler(message):
            read = given(extract(limit=limit))
            table = read.outputs["table"]
            if has("nested without parameters"):
                trained = training_without_parameters(table=table)
            else:
                trained = training(table=table, limit=limit)
            verdict = read.outputs["verdict"]
            word = "it's fine" if has("quote") else "fine"
            with dsl.If(verdict == word, name="fine"):
                deployed = given(deploy_model(model=trained.output), pure=has("cached deploy"))
                if has("retried deploy"):
                    deployed.set_retry(3)
                first = given(fit(table=table))
            if not has("bare if"):
                with dsl.Else(name="not-fine"):
                    second = given(fit(table=table))
            if has("one of artifacts"):
                given(deploy_model(model=dsl.OneOf(first.outputs["model"], second.outputs["model"])), pure=False)
            where = read.outputs["regions"] if has("loop over named output") else given(regions()).output
            with dsl.ParallelFor(where) as region:
                given(score(region=region))
            given(warm_up(region="north"), pure=has("cached and gives nothing"))
            if has("secret parameter"):
                given(connect(api_token="from-somewhere"))
            if has("key in argument"):
                given(score(region="postgresql://ann:hunter2@db/churn"))

    Compiler().compile(pipeline, str(file))
    return file
