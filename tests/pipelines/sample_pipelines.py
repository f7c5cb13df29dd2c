"""Small KFP pipelines that the engine's tests run for real; loaded by name in the worker's process."""

from kfp import dsl, kubernetes

from kfloop.core.image import IMAGE
from kfloop.pipelines.cluster.retraining import stand_by, submit_training


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def decide(answer: str, ran: dsl.Output[dsl.Artifact]) -> str:
    """Return the answer it is given."""
    from pathlib import Path

    from kfloop.core.state import open_state
    from kfloop.core.workspace import Workspace, run_id

    workspace = Workspace.from_json(answer)
    open_state(workspace.state).runs.step(run_id(), "decide", "started", {})
    place = Path(workspace.store) / "kind" / "0123"
    place.mkdir(parents=True, exist_ok=True)
    ran.uri, ran.metadata["digest"] = str(place), "0123"
    payload = {"seconds": 0.1, "kind": "kind", "digest": "0123", "path": str(place), "outcome": "yes"}
    open_state(workspace.state).runs.step(run_id(), "decide", "succeeded", payload)
    return "yes"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def act(workspace: str, name: str, seconds: float = 0.0, fail: bool = False) -> str:
    """Report, wait, perhaps fail."""
    import os
    import threading

    from kfloop.core.lifetime import bind_to_run
    from kfloop.core.state import open_state
    from kfloop.core.workspace import Workspace, run_id
    from kfloop.errors import InputError

    bind_to_run()
    runs = open_state(Workspace.from_json(workspace).state).runs
    runs.step(run_id(), name, "started", {"pid": os.getpid()})
    threading.Event().wait(seconds)
    if fail:
        error = InputError("planned failure of 'act'", hint="nothing to do")
        runs.step(run_id(), name, "failed", {"seconds": seconds, "error": error.as_dict()})
        raise error
    runs.step(run_id(), name, "succeeded", {"seconds": seconds, "digest": "d", "kind": "k", "path": "/nowhere"})
    return "done"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def other(workspace: str) -> str:
    """Report that it ran."""
    from kfloop.core.state import open_state
    from kfloop.core.workspace import Workspace, run_id

    runs = open_state(Workspace.from_json(workspace).state).runs
    runs.step(run_id(), "other", "started", {})
    runs.step(run_id(), "other", "succeeded", {"seconds": 0.0})
    return "done"


@dsl.pipeline
def branching(workspace: str) -> None:
    """Two branches behind one answer."""
    first = decide(answer=workspace)
    with dsl.If(first.outputs["Output"] == "yes"):
        act(workspace=workspace, name="act").set_caching_options(enable_caching=False)
    with dsl.Else():
        other(workspace=workspace).set_caching_options(enable_caching=False)


@dsl.pipeline
def failing(workspace: str) -> None:
    """A step that fails, and one behind it."""
    first = act(workspace=workspace, name="act", fail=True)
    other(workspace=workspace).after(first)


@dsl.pipeline
def slow(workspace: str) -> None:
    """A step that takes a minute."""
    act(workspace=workspace, name="act", seconds=60.0)


@dsl.pipeline
def secretive(workspace: str) -> None:
    """A step that needs a secret of the cluster, which the local runner would drop without a word."""
    task = act(workspace=workspace, name="act")
    kubernetes.use_secret_as_env(task, secret_name="token", secret_key_to_env={"token": "TOKEN"})


@dsl.pipeline
def endless(workspace: str) -> None:
    """A step that takes a minute and has a second, behind another that keeps within its time."""
    first = act(workspace=workspace, name="act")
    kubernetes.set_timeout(first, 60)
    kubernetes.set_timeout(act(workspace=workspace, name="act", seconds=60.0).after(first), 2)


@dsl.pipeline
def borrowed(workspace: str) -> None:
    """A step with all that has an equivalent on one machine."""
    task = act(workspace=workspace, name="act")
    kubernetes.use_secret_as_env(task, secret_name="s", secret_key_to_env={"key": "KFLOOP_TEST_SECRET"})
    kubernetes.use_config_map_as_env(task, config_map_name="c", config_map_key_to_env={"key": "NOWHERE"}, optional=True)
    kubernetes.mount_pvc(task, pvc_name="work", mount_path="/nowhere")
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/usr", medium="Memory")
    kubernetes.add_pod_label(task, label_key="team", label_value="vision")


@dsl.pipeline
def greedy(workspace: str) -> None:
    """A step that asks for what this machine need not have."""
    task = act(workspace=workspace, name="act")
    task.set_cpu_limit("64").set_memory_limit("512Gi").set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(8)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def idle() -> None:
    """Do nothing."""


@dsl.pipeline
def mounted() -> None:
    """A volume at a place that is not the workspace's."""
    kubernetes.mount_pvc(idle(), pvc_name="work", mount_path="/nowhere")


@dsl.pipeline
def fielded(workspace: str) -> None:
    """A field of the pod."""
    kubernetes.use_field_path_as_env(act(workspace=workspace, name="act"), env_name="POD", field_path="metadata.name")


@dsl.pipeline
def secret_files(workspace: str) -> None:
    """A secret as files."""
    kubernetes.use_secret_as_volume(act(workspace=workspace, name="act"), secret_name="s", mount_path="/secret")


@dsl.pipeline
def looping(workspace: str) -> None:
    """A step for each of two names."""
    with dsl.ParallelFor(["a", "b"]) as name:
        act(workspace=workspace, name=name)


@dsl.pipeline
def starting(
    workspace: str,
    cluster_config: str,
    data: str,
    validation: str,
    labels: str,
    train_config: str,
    package_config: str,
    evaluate_config: str,
    bless_config: str,
    gate_config: str,
    deploy_config: str,
    notify_config: str,
) -> None:
    """The step of monitoring that starts a training on a cluster, alone."""
    submit_training(
        workspace=workspace,
        cluster_config=cluster_config,
        data=data,
        validation=validation,
        labels=labels,
        train_config=train_config,
        package_config=package_config,
        evaluate_config=evaluate_config,
        bless_config=bless_config,
        gate_config=gate_config,
        deploy_config=deploy_config,
        notify_config=notify_config,
    )


@dsl.pipeline
def waiting(workspace: str, cluster_config: str) -> None:
    """The step of monitoring that waits for a training on a cluster, alone."""
    stand_by(workspace=workspace, trigger="in_flight", cluster_config=cluster_config)
