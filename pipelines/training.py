"""The training pipeline: from a source to a decision, and to a promoted version when the decision says so.

Every task takes its section of ``loop.yaml`` as one JSON string and, beside each input artifact, that artifact's digest, so that a
cache key changes whenever the content does. What touches the world (ingest reads a source that may change behind its path; incumbent
reads the ledger; deploy, keep and notify write) is never cached.
"""

from kfp import dsl

from kfloop.components.bless.component import bless
from kfloop.components.check_labels.component import check_labels
from kfloop.components.deploy.component import deploy, keep
from kfloop.components.evaluate.component import evaluate
from kfloop.components.gate.component import gate
from kfloop.components.incumbent.component import incumbent
from kfloop.components.ingest.component import ingest
from kfloop.components.notify.component import notify
from kfloop.components.package.component import package
from kfloop.components.train.component import train
from kfloop.components.validate_data.component import validate_data


@dsl.pipeline(
    name="training-round", description="Ingest to deploy, without the exit handler, so that it can be nested."
)
def training_round(
    workspace: str,
    data: str,
    validation: str,
    labels: str,
    train_config: str,
    package_config: str,
    evaluate_config: str,
    bless_config: str,
    gate_config: str,
    deploy_config: str,
) -> None:
    """One round: each argument after ``workspace`` is the JSON of a section."""
    data_task = ingest(workspace=workspace, config_json=data).set_caching_options(enable_caching=False)
    dataset, dataset_digest = data_task.outputs["dataset"], data_task.outputs["Output"]
    validation_task = validate_data(
        workspace=workspace, config_json=validation, dataset_digest=dataset_digest, dataset=dataset
    )
    labels_task = check_labels(
        workspace=workspace, config_json=labels, dataset_digest=dataset_digest, dataset=dataset
    ).after(validation_task)
    train_task = train(
        workspace=workspace,
        config_json=train_config,
        dataset_digest=dataset_digest,
        labels_digest=labels_task.outputs["Output"],
        dataset=dataset,
        labels=labels_task.outputs["labels"],
    )
    package_task = package(
        workspace=workspace,
        config_json=package_config,
        dataset_digest=dataset_digest,
        checkpoint_digest=train_task.outputs["Output"],
        dataset=dataset,
        checkpoint=train_task.outputs["checkpoint"],
    )
    model, model_digest = package_task.outputs["model"], package_task.outputs["Output"]
    incumbent_task = incumbent(
        workspace=workspace, config_json=deploy_config, model_digest=model_digest, model=model
    ).set_caching_options(enable_caching=False)
    evaluate_task = evaluate(
        workspace=workspace,
        config_json=evaluate_config,
        dataset_digest=dataset_digest,
        model_digest=model_digest,
        champion_digest=incumbent_task.outputs["Output"],
        dataset=dataset,
        model=model,
        incumbent=incumbent_task.outputs["incumbent"],
    )
    bless_task = bless(
        workspace=workspace,
        config_json=bless_config,
        dataset_digest=dataset_digest,
        model_digest=model_digest,
        dataset=dataset,
        model=model,
    ).after(evaluate_task)
    gate_task = gate(
        workspace=workspace,
        config_json=gate_config,
        validation_digest=validation_task.outputs["Output"],
        labels_digest=labels_task.outputs["Output"],
        evaluation_digest=evaluate_task.outputs["Output"],
        blessing_digest=bless_task.outputs["Output"],
        validation=validation_task.outputs["validation"],
        labels=labels_task.outputs["labels"],
        evaluation=evaluate_task.outputs["evaluation"],
        blessing=bless_task.outputs["blessing"],
    )
    decision = gate_task.outputs["decision"]
    with dsl.If(gate_task.outputs["Output"] == "promote", name="promoted"):
        deploy(
            workspace=workspace, config_json=deploy_config, model_digest=model_digest, model=model, decision=decision
        ).set_caching_options(enable_caching=False)
    with dsl.Else(name="not-promoted"):
        keep(
            workspace=workspace, config_json=deploy_config, model_digest=model_digest, model=model, decision=decision
        ).set_caching_options(enable_caching=False)


@dsl.pipeline(name="training", description="One training round, with a message at its end.")
def training(
    workspace: str,
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
    """A round whose end is always told; each argument after ``workspace`` is the JSON of a section."""
    message = notify(workspace=workspace, config_json=notify_config).set_caching_options(enable_caching=False)
    with dsl.ExitHandler(message):
        training_round(
            workspace=workspace,
            data=data,
            validation=validation,
            labels=labels,
            train_config=train_config,
            package_config=package_config,
            evaluate_config=evaluate_config,
            bless_config=bless_config,
            gate_config=gate_config,
            deploy_config=deploy_config,
        )
