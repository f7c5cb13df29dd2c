"""The ways to validate a table: kfloop's polars engine, Great Expectations on pandas, pandera on polars, and polars alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_expectations import COLUMNS, EXPECTATIONS, KINDS, pandera_verdicts, polars_checks, rows, suite
from data_measure import Case, Work

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 500_000
PARQUET, VERSION, SUITE = "table.parquet", "version", "suite.json"
OURS = "kfloop, polars engine"
BARE = ("polars, in memory", "polars, streaming")


def prepare(folder: Path, work: Work) -> dict[str, Any]:
    """Write the same rows as Parquet and as a dataset version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kfloop.core.versions import VersionWriter
    from kfloop.core.versions.assigning import Splitter
    from kfloop.core.versions.keys import Hasher
    from kfloop.core.versions.splitting import Cutoffs

    count, damaged = work.options["rows"], work.options.get("damaged", False)
    (folder / VERSION).mkdir()
    hasher = Hasher(modality="table", task="multiclass", labels=KINDS, schema={}, inputs=COLUMNS[1:])
    splitter = Splitter(Cutoffs(method="random", validation=0.15, test=0.25), KINDS, "table")
    writer = VersionWriter(folder / VERSION, name="bench", hasher=hasher, splitter=splitter)
    file = None
    for start in range(0, count, AT_ONCE):
        part = rows(start, min(AT_ONCE, count - start), damaged=damaged)
        file = file or pq.ParquetWriter(folder / PARQUET, part.schema)
        file.write_table(part)
        # A version has a label beside its inputs; the expectations do not look at it.
        labels = pa.array(part["year"].to_numpy() % len(KINDS))
        part = part.append_column("label", labels).append_column("origin", pa.repeat(pa.scalar("base"), part.num_rows))
        writer.add(part)
    if file is not None:
        file.close()
    writer.finish()
    (folder / SUITE).write_text(json.dumps({"expectations": suite()}), encoding="utf-8")
    return {"parquet_mb": (folder / PARQUET).stat().st_size / (1 << 20)}


def kfloop(folder: Path, work: Work) -> dict[str, Any]:
    """The version judged as the step validate_data does, without its skew and profile."""
    from kfloop.components.validate_data.engines.choosing import evaluate
    from kfloop.components.validate_data.manifest import build_manifest
    from kfloop.core.versions import read_version

    _imported()
    with work:
        manifest = build_manifest(read_version(folder / VERSION))
        work.part("manifest")
        results = evaluate(manifest, suite(), "polars")
        work.part("evaluate")
    return {"verdicts": [result["passed"] for result in results]}


def kfloop_step(folder: Path, work: Work) -> dict[str, Any]:
    """The whole step: the suite, skew between the splits, and a profile of each column."""
    import scipy.stats  # noqa: F401 - imported before the clock starts

    from kfloop.components.validate_data.validation import run
    from kfloop.core.sections import ValidationConfig
    from kfloop.core.workspace import Workspace
    from kfloop.errors import InputError

    _imported()
    place = Path(tempfile.mkdtemp(dir=folder))
    workspace = Workspace(loop="bench", root=place, state=f"sqlite:///{place}/s.db", store=str(place / "s"), mlflow="")
    config = ValidationConfig(suite=str(folder / SUITE), engine="polars")
    report, kept = place / "report.json", place / ".kfloop" / "failed" / "validation" / "report.json"
    with work:
        try:
            run(config, dataset=folder / VERSION, out=place, workspace=workspace)
        except InputError:
            report = kept  # damaged data stop the step
    results = json.loads(report.read_text(encoding="utf-8"))["results"]
    return {"verdicts": [result["passed"] for result in results][: len(EXPECTATIONS)]}


def polars_in_memory(folder: Path, work: Work) -> dict[str, Any]:
    """The same Arrow streams, one lazy select, polars' default engine."""
    return _polars(folder, work, "in-memory")


def polars_streaming(folder: Path, work: Work) -> dict[str, Any]:
    """The same Arrow streams, one lazy select, polars' streaming engine."""
    return _polars(folder, work, "streaming")


def _polars(folder: Path, work: Work, engine: Any) -> dict[str, Any]:
    import polars as pl

    _imported()
    with work:
        frame = pl.from_arrow(_arrow(folder), rechunk=False)
        work.part("open")
        found = frame.lazy().select(polars_checks()).collect(engine=engine).row(0)
        work.part("select")
    return {"verdicts": list(found)}


def polars_parquet(folder: Path, work: Work) -> dict[str, Any]:
    """The Parquet file, one lazy select, polars' streaming engine."""
    import polars as pl

    _imported()
    with work:
        found = pl.scan_parquet(folder / PARQUET).select(polars_checks()).collect(engine="streaming").row(0)
        work.part("scan and select")
    return {"verdicts": list(found)}


def pandera(folder: Path, work: Work) -> dict[str, Any]:
    """The same Arrow streams as a polars frame, a schema of pandera."""
    import pandera.polars  # noqa: F401 - imported before the clock starts
    import polars as pl

    _imported()
    with work:
        frame = pl.from_arrow(_arrow(folder), rechunk=False)
        work.part("open")
        found = pandera_verdicts(frame)
        work.part("validate")
    return {"verdicts": found}


def great_expectations(folder: Path, work: Work) -> dict[str, Any]:
    """The Parquet file read by pandas, and Great Expectations as its manual says."""
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    _imported()
    with work:
        frame = pd.read_parquet(folder / PARQUET)
        work.part("read")
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("bench").add_dataframe_asset("rows")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        expectations = [
            ExpectationConfiguration(type=item["type"], kwargs=item["kwargs"]).to_domain_obj() for item in suite()
        ]
        found = batch.validate(gx.ExpectationSuite(name="bench", expectations=expectations))
        work.part("validate")
    # The results come back in another order.
    verdicts = {
        (result.expectation_config.type, result.expectation_config.kwargs.get("column", "")): result.success
        for result in found.results
    }
    return {"verdicts": [bool(verdicts[kind, column]) for kind, column, _ in EXPECTATIONS]}


def _arrow(folder: Path) -> pa.Table:
    """All splits of the version, memory-mapped, the ten columns."""
    import pyarrow as pa

    parts = []
    for split in ("train", "validation", "test"):
        with pa.memory_map(str(folder / VERSION / f"{split}.arrow")) as source:
            parts.append(pa.ipc.open_stream(source).read_all().select(list(COLUMNS)))
    return pa.concat_tables(parts)


def _imported() -> None:
    """Import what all of them need before any clock starts."""
    import pandas as pd  # noqa: F401 - pyarrow imports it when numpy arrays come in
    import polars as pl
    import pyarrow.parquet  # noqa: F401 - as above

    pl.DataFrame({"x": [1]}).lazy().select(pl.col("x").sum()).collect(engine="streaming")


_QUIET = {"GX_ANALYTICS_ENABLED": "false", "TQDM_DISABLE": "1"}
CASES = (
    Case(name=OURS, run=kfloop),
    Case(name="kfloop validate_data, with skew and profile", run=kfloop_step),
    Case(name=BARE[0], run=polars_in_memory),
    Case(name=BARE[1], run=polars_streaming),
    Case(name="polars, scan_parquet streaming", run=polars_parquet),
    Case(name="pandera.polars", run=pandera, needs="pandera"),
    Case(name="Great Expectations, pandas", run=great_expectations, needs="great_expectations", quiet=_QUIET),
)
PREPARE = Case(name="prepare", run=prepare)
