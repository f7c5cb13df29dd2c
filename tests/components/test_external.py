"""A model behind an endpoint through train, package and evaluate: as challenger, as champion, and when its owner changes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import endpoints
import trainings
from kfloop.components.evaluate.evaluation import EvaluationReport
from kfloop.components.evaluate.evaluation import run as evaluate
from kfloop.components.package.packaging import PackageReport
from kfloop.components.package.packaging import run as package
from kfloop.components.train.training import after_publish
from kfloop.components.train.training import run as train
from kfloop.core.artifacts import read_report, write_report
from kfloop.core.config import load_config, parse_section, section_json
from kfloop.core.encoding import fit_encoder, restore_encoder
from kfloop.core.encoding.rows import Encoder as RowEncoder
from kfloop.core.own_code import own_digest
from kfloop.core.scoring import PackagedModel
from kfloop.core.sections import EvaluateConfig, PackageConfig, TrainConfig
from kfloop.core.store import Store
from kfloop.core.versions import Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, ServerUnavailable, StateError, TerminalError

HERE = Path(__file__).parent
QUICK = EvaluateConfig(bootstrap=200)
SHAPE = (8, 8, 1)
LABELS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("data") / "digits"
    folder.mkdir()
    pixels, labels = load_digits(return_X_y=True)
    rows = Rows(
        ids=[f"r{row}" for row in range(400)],
        images=(pixels[:400].reshape(-1, *SHAPE) / 16 * 255).round().astype(np.uint8),
        labels=labels[:400].astype(np.int64),
        origin=["base"] * 400,
    )
    write_version(folder, name="digits", rows=rows, labels=LABELS, validation=0.15, test=0.25)
    return folder


@pytest.fixture(scope="module")
def model() -> Any:
    return endpoints.digits_model()


def told(url: str, **changes: Any) -> TrainConfig:
    own = {"protocol": "json", "url": url, "batch": 50, "retries": 0, "unseen_rows": True, "price_per_1000": 1.5}
    return TrainConfig.model_validate({"external": own | changes})


def place(root: Path) -> Workspace:
    found: Workspace = trainings.place(root)
    return found


def packaged(root: Path, dataset: Path, config: TrainConfig) -> tuple[Path, PackageReport]:
    """Train and package; the package is put into the store under its digest."""
    workspace, checkpoint, out = place(root), root / "checkpoint", root / "package"
    for folder in (checkpoint, out):
        folder.mkdir()
    labels = trainings.no_doubts(root / "labels")
    train(config, dataset=dataset, labels=labels, out=checkpoint, workspace=workspace)
    report = package(PackageConfig(), dataset=dataset, checkpoint=checkpoint, out=out, workspace=workspace)
    return Store(workspace.store).publish(out, "models", report.digest), report


def judged(root: Path, dataset: Path, model: Path, champion: str | None = None) -> EvaluationReport:
    incumbent, out = root / "incumbent", root / "evaluation"
    for folder in (incumbent, out):
        folder.mkdir(exist_ok=True)
    write_report(incumbent, {"champion_digest": champion})
    return evaluate(QUICK, dataset=dataset, model=model, incumbent=incumbent, out=out, workspace=place(root))


def test_an_endpoint_is_scored_like_any_model(tmp_path: Path, dataset: Path, model: Any) -> None:
    with endpoints.serving(endpoints.json_answers(model)) as endpoint:
        folder, report = packaged(tmp_path, dataset, told(endpoint.url))
        found = judged(tmp_path, dataset, folder)
    test = read_version(dataset).table("test")
    pixels = np.stack(test["image"].to_numpy()).astype(float)
    right = np.mean(model(pixels).argmax(axis=1) == test["label"].to_numpy())
    assert found.challenger["overall"]["accuracy"].value == pytest.approx(right)
    assert found.overlap == {"challenger": 0, "champion": None}
    assert found.external["champion"] is None
    cost = found.external["challenger"]
    assert cost is not None
    assert cost["rows"] == 16 + len(pixels)  # golden answers, and the test rows
    assert cost["price_per_1000"] == 1.5
    assert 0 < cost["call_ms_p50"] <= cost["call_ms_p95"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "encoder.json", "external.json", "golden.npz", "reference.npz", "report.json", "signature.json", "train_content.txt"
    ]  # fmt: skip
    assert report.external is not None
    assert report.external["rows"] == 32 + report.n_reference
    assert report.max_abs_diff < 1e-6
    sent = {row for body in endpoint.bodies for row in map(json.dumps, json.loads(body)["instances"])}
    kept = np.concatenate(
        [np.stack(read_version(dataset).table(split)["image"].to_numpy()) for split in ("validation", "test")]
    )
    assert sent <= {json.dumps(row.reshape(SHAPE).tolist()) for row in kept}  # no training row leaves the machine


def test_a_trained_model_is_compared_with_an_endpoint_that_is_champion(
    tmp_path: Path, dataset: Path, model: Any
) -> None:
    def weak(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.roll(model(rows), 1, axis=1)
        return found

    with (
        endpoints.serving(endpoints.json_answers(weak)) as old,
        endpoints.serving(endpoints.json_answers(model)) as new,
    ):
        (tmp_path / "old").mkdir()
        champion, report = packaged(tmp_path / "old", dataset, told(old.url, price_per_1000=9.0))
        challenger, _ = packaged(tmp_path, dataset, told(new.url))
        Store(place(tmp_path).store).publish(champion, "models", report.digest)
        found = judged(tmp_path, dataset, challenger, report.digest)
    assert found.champion is not None
    assert found.differences["champion"]["overall"]["accuracy"].low > 0.5
    assert {role: cost and cost["price_per_1000"] for role, cost in found.external.items()} == {
        "challenger": 1.5,
        "champion": 9.0,
    }


def test_nobody_vouches_so_the_overlap_is_unknown(tmp_path: Path, dataset: Path, model: Any) -> None:
    with endpoints.serving(endpoints.json_answers(model)) as endpoint:
        folder, _ = packaged(tmp_path, dataset, told(endpoint.url, unseen_rows=False))
        assert judged(tmp_path, dataset, folder).overlap == {"challenger": None, "champion": None}
    assert PackagedModel(folder).train_content() is None


@pytest.mark.parametrize("role", ["challenger", "champion"])
def test_a_model_changed_without_a_word_is_found_out(tmp_path: Path, dataset: Path, model: Any, role: str) -> None:
    changed: list[str] = []

    def changing(name: str) -> Any:
        return endpoints.json_answers(lambda rows: model(rows) * 0.9 + 0.01 if name in changed else model(rows))

    with endpoints.serving(changing("challenger")) as new, endpoints.serving(changing("champion")) as old:
        (tmp_path / "old").mkdir()
        champion, report = packaged(tmp_path / "old", dataset, told(old.url))
        Store(place(tmp_path).store).publish(champion, "models", report.digest)
        folder, _ = packaged(tmp_path, dataset, told(new.url))
        changed.append(role)
        with pytest.raises(StateError, match=f"is not the {role} .* any more: its golden answers differ by 0.0"):
            judged(tmp_path, dataset, folder, report.digest)
    assert not (tmp_path / "evaluation" / "report.json").exists()


def test_an_endpoint_that_is_gone_is_no_comparison(tmp_path: Path, dataset: Path, model: Any) -> None:
    with endpoints.serving(endpoints.json_answers(model)) as endpoint:
        folder, _ = packaged(tmp_path, dataset, told(endpoint.url))
    with pytest.raises(ServerUnavailable, match="no answer from http://127") as caught:
        judged(tmp_path, dataset, folder)
    assert caught.value.transient
    assert not (tmp_path / "evaluation" / "report.json").exists()


def test_answers_that_depend_on_their_neighbours_are_refused(tmp_path: Path, dataset: Path, model: Any) -> None:
    def shy(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = model(rows)
        return found if len(rows) == 1 else found[:, ::-1]

    with (
        endpoints.serving(endpoints.json_answers(shy)) as endpoint,
        pytest.raises(TerminalError, match=r"answers the same 16 rows differently .* one by one"),
    ):
        packaged(tmp_path, dataset, told(endpoint.url))


def test_the_token_is_written_nowhere(
    tmp_path: Path, dataset: Path, model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MODEL_TOKEN_DIGITS", endpoints.TOKEN)
    with endpoints.serving(endpoints.json_answers(model)) as endpoint:
        folder, _ = packaged(tmp_path, dataset, told(endpoint.url, token_env="MODEL_TOKEN_DIGITS"))
        judged(tmp_path, dataset, folder)
    assert {headers["Authorization"] for headers in endpoint.headers} == {f"Bearer {endpoints.TOKEN}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if endpoints.TOKEN.encode() in path.read_bytes()]
    assert endpoints.TOKEN not in caplog.text


def table(folder: Path) -> Path:
    """A table with numbers, categories, times and gaps, by kfloop's own ingest."""
    from kfloop.components.ingest.ingestion import run
    from kfloop.core.sections import DataConfig

    rng = np.random.default_rng(0)
    lines = ["age,job,since,label"]
    for row in range(200):
        age = int(rng.integers(18, 80))
        shown = "" if row % 17 == 0 else age
        lines.append(
            f"{shown},{'cook' if row % 3 else 'baker ' + str(row)},2024-01-{1 + row % 28:02d},{'old' if age > 50 else 'young'}"
        )
    source = folder.parent / "people.csv"
    source.write_text("\n".join(lines) + "\n")
    folder.mkdir()
    run(DataConfig(source=str(source), label="label"), out=folder, workspace=place(folder.parent / "ingest"))
    return folder


def test_rows_of_a_table_are_sent_as_they_are(tmp_path: Path) -> None:
    def answer(path: str, body: bytes) -> bytes:
        del path
        found = [0.9 if (row["age"] or 0) > 50 else 0.1 for row in json.loads(body)["people"]]
        return json.dumps([{"old": share, "young": 1 - share} for share in found]).encode()

    people = table(tmp_path / "people")
    adapter = {"body": {"people": "$rows"}, "answer": ""}
    with endpoints.serving(answer) as endpoint:
        folder, _ = packaged(tmp_path, people, told(endpoint.url, adapter=adapter))
        found = judged(tmp_path, people, folder)
    row = json.loads(endpoint.bodies[0])["people"][0]
    assert set(row) == {"age", "job", "since"}
    assert row["since"].startswith("2024-01-")
    assert found.challenger["overall"]["accuracy"].value > 0.9
    sent = [one for body in endpoint.bodies for one in json.loads(body)["people"]]
    assert None in {one["age"] for one in sent}
    assert any(one["job"].startswith("baker ") for one in sent)  # rare words too, which kfloop's own encoder would lose


def test_an_encoder_of_rows_gives_the_same_bytes_again(tmp_path: Path) -> None:
    version = read_version(table(tmp_path / "people"))
    encoder = RowEncoder.fit(version)
    again = restore_encoder(json.loads(json.dumps(encoder.plain())))
    rows = version.table("test")
    assert (encoder.encode(rows)[0] == again.encode(rows)[0]).all()
    examples = again.examples(version, "test", "classification")
    some = np.array([3, 0])
    assert (examples.take(some).batch_inputs(np.array([0, 1]))[0] == examples.batch_inputs(some)[0]).all()
    with pytest.raises(Exception, match="column 'age' is missing"):
        encoder.encode(rows.drop_columns(["age"]))


def test_texts_are_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # as for users: an import leaves a folder beside the file
    from kfloop.components.ingest.ingestion import run
    from kfloop.core.sections import DataConfig

    source = tmp_path / "texts.jsonl"
    words = [("good day", "kind"), ('bad "night" ü', "harsh")]
    lines = [json.dumps({"text": f"{words[row % 2][0]} {row}", "label": words[row % 2][1]}) for row in range(120)]
    source.write_text("\n".join(lines) + "\n")
    folder = tmp_path / "texts"
    folder.mkdir()
    run(DataConfig(source=str(source), text="text", label="label"), out=folder, workspace=place(tmp_path / "ingest"))

    def answer(path: str, body: bytes) -> bytes:
        del path
        text = json.loads(body)["text"]
        return json.dumps(
            {"scores": {"harsh": 0.8, "kind": 0.2} if "bad" in text else {"harsh": 0.3, "kind": 0.7}}
        ).encode()

    (tmp_path / "speech.py").write_text("def read(answer):\n    return [answer['scores']]\n")
    adapter = {"body": {"text": "$row"}, "response": "speech:read"}
    with endpoints.serving(answer) as endpoint:
        model, _ = packaged(tmp_path, folder, told(endpoint.url, adapter=adapter, batch=1))
        (tmp_path / "speech.py").write_text("")  # the package has a copy of its own
        found = judged(tmp_path, folder, model)
    assert found.challenger["overall"]["accuracy"].value == 1.0
    assert (model / "adapter.py").is_file()
    assert not (model / "__pycache__").exists()


def kserve_of(model: Any) -> Any:
    def answer(path: str, body: bytes) -> bytes:
        assert path == "/v2/models/digits/versions/3/infer"
        tensor = json.loads(body)["inputs"][0]
        found = model(np.array(tensor["data"]).reshape(tensor["shape"]))
        output = {"name": "scores", "datatype": "FP64", "shape": list(found.shape), "data": found.ravel().tolist()}
        return json.dumps({"model_name": "digits", "outputs": [output]}).encode()

    return answer


def test_kserve_is_spoken_as_its_metadata_say(tmp_path: Path, dataset: Path, model: Any) -> None:
    with endpoints.serving(kserve_of(model)) as endpoint:
        endpoint.metadata = {
            "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
            "outputs": [{"name": "scores", "datatype": "FP64", "shape": [-1, 10]}],
        }
        kserve = {"protocol": "kserve", "model": "digits", "version": "3"}
        folder, _ = packaged(tmp_path, dataset, told(endpoint.url, **kserve))
        assert judged(tmp_path, dataset, folder).challenger["overall"]["accuracy"].value > 0.8
        tensor = json.loads(endpoint.bodies[0])["inputs"][0]
        assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("pixels", "FP32", [16, 64])
        for number, (changes, sentence) in enumerate(
            (
                ({"input": "picture"}, "input is 'picture', but the endpoint takes"),
                ({"output": "answer"}, "output is 'answer', but the endpoint gives"),
                ({"input_shape": [7, 7]}, "a row of these data is"),
            )
        ):
            (tmp_path / str(number)).mkdir()
            with pytest.raises(ConfigError, match=sentence):
                packaged(tmp_path / str(number), dataset, told(endpoint.url, **kserve, **changes))
        endpoint.metadata = None
        (tmp_path / "lost").mkdir()
        with pytest.raises(TerminalError, match=r"404 Not Found .*url, model and version"):
            packaged(tmp_path / "lost", dataset, told(endpoint.url, **kserve))


@pytest.mark.parametrize(
    ("external", "sentence"),
    [
        ({"url": "ftp://there"}, "expected http"),
        ({"url": "https://me:hunter2@there/"}, "secret .not shown"),
        ({"url": "https://there/?api-key=hunter2"}, "secret .not shown"),
        ({"token_env": "hunter2-my-very-token"}, "NAME of an environment variable"),
        ({"protocol": "json", "binary": True}, "belong to protocol kserve"),
        ({"protocol": "kserve"}, "takes the model's name"),
        ({"adapter": {"request": "module"}}, "expected module:function"),
        ({"adapter": {"request": "a:b", "response": "c:d"}}, "two modules"),
        ({"urll": "x"}, "unknown key 'train.external.urll'"),
    ],
)
def test_a_loop_file_that_is_wrong_is_refused_and_its_secrets_are_not_repeated(
    tmp_path: Path, external: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "loop.yaml"
    section = {"protocol": "json", "url": "http://there/"} | external
    path.write_text(json.dumps({"name": "digits", "train": {"external": section}}))
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_config(path)
    assert "hunter2" not in str(caught.value.as_dict()) + repr(caught.value.__cause__)
    if "urll" in external:
        assert caught.value.hint == "did you mean 'url'?"


def test_the_section_travels_to_the_step_and_counts(tmp_path: Path) -> None:
    path, module = tmp_path / "loop.yaml", tmp_path / "speech.py"
    module.write_text("def read(answer):\n    return answer\n")
    external = {"protocol": "json", "url": "http://there/", "adapter": {"response": "speech:read"}}
    path.write_text(json.dumps({"name": "digits", "train": {"external": external}}))
    config = load_config(path)
    assert parse_section("train", section_json(config, "train")) == config.train
    before = own_digest(config.train, tmp_path)
    module.write_text("def read(answer):\n    return answer['x']\n")
    assert before
    assert own_digest(config.train, tmp_path) != before


@pytest.mark.parametrize(
    ("train_keys", "external", "sentence"),
    [
        ({"epochs": 3}, {}, "train.epochs is set, but nothing is trained"),
        ({}, {"labels": ["0", "1"]}, "train.external.labels and the classes of the data differ in"),
        ({}, {"adapter": {"body": {"rows": []}}}, "holds no row"),
        ({}, {"adapter": {"body": "$row"}}, "takes one row .*, but batch is 50"),
        ({}, {"adapter": {"response": "nowhere:read"}}, "there is no module at"),
    ],
)
def test_what_does_not_fit_is_refused_before_anybody_is_asked(
    tmp_path: Path, dataset: Path, train_keys: dict[str, Any], external: dict[str, Any], sentence: str
) -> None:
    config = told("http://127.0.0.1:9", **external)
    config = TrainConfig.model_validate(config.model_dump() | train_keys)
    with pytest.raises(ConfigError, match=sentence):
        packaged(tmp_path, dataset, config)


def test_other_work_folders_stay_when_an_endpoint_is_published(tmp_path: Path, dataset: Path, model: Any) -> None:
    workspace = place(tmp_path)
    other = workspace.kfloop_dir / "work" / "train" / "other"
    other.mkdir(parents=True)
    with endpoints.serving(endpoints.json_answers(model)) as endpoint:
        packaged(tmp_path, dataset, told(endpoint.url))
    after_publish(tmp_path / "checkpoint", workspace)
    assert other.is_dir()
    assert read_report(tmp_path / "checkpoint")["family"] == "external"
    assert fit_encoder(read_version(dataset)).plain() == json.loads((tmp_path / "package" / "encoder.json").read_text())
