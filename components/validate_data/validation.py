"""Judging a dataset version by a suite: bad data fails, a broken check is an error, and both stop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data.engines.choosing import choose, evaluate
from kfloop.components.validate_data.manifest import build_manifest
from kfloop.components.validate_data.pairs import compare, skew_results
from kfloop.components.validate_data.profile import profile
from kfloop.components.validate_data.suites import CRITICAL, default_suite, load_suite
from kfloop.core.artifacts import canonical_json, sha256_text, write_report
from kfloop.core.expectations.outcomes import ERROR, PASS, WORST_FIRST
from kfloop.core.spark import scratch_of
from kfloop.core.versions import read_version
from kfloop.errors import InputError, TerminalError

if TYPE_CHECKING:
    from kfloop.core.sections import ValidationConfig
    from kfloop.core.workspace import Workspace

DEFAULT = "default"
OBSERVED_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """What the suite says about one dataset version.

    Attributes:
        dataset_digest: Dataset version that was judged.
        outcome_word: ``pass``, ``fail`` (bad data) or ``error`` (a broken check), over the critical expectations.
        n_rows: Rows judged.
        engine: ``great_expectations``, ``polars`` or ``spark``.
        results: One entry for each expectation, and a warning for each pair of sets that was compared (``skew:train/test``).
        suite_digest: Digest of the suite.
        suite_source: Path of the suite, or ``default``.
        suite: Its expectations, so that requests can be held against what the training rows were held against.
        skew: One entry for each column of each pair: pair, column, test, statistic, p, p_adjusted, effect, skewed, n_reference, n_current.
        profile: One entry for each column.
    """

    dataset_digest: str
    outcome_word: str
    n_rows: int
    engine: str
    results: list[dict[str, Any]]
    suite_digest: str
    suite_source: str
    suite: list[dict[str, Any]]
    skew: list[dict[str, Any]]
    profile: list[dict[str, Any]]


def run(config: ValidationConfig, *, dataset: Path, out: Path, workspace: Workspace) -> ValidationReport:
    """Judge the version.

    Args:
        config: The ``validation`` section.
        dataset: Dataset version.
        out: Empty folder for ``report.json``.
        workspace: The loop's places; a failing report is kept under ``.kfloop/failed`` for people to read.

    Raises:
        InputError: A critical expectation failed; the message names expectation, column and what was observed.
        TerminalError: A critical check is broken.
        ConfigError: The suite is unusable, or the engine does not know one of its expectations.
    """
    version = read_version(dataset)
    manifest = build_manifest(version)
    suite = load_suite(Path(config.suite)) if config.suite else default_suite(version, manifest)
    engine = choose(config.engine, manifest.num_rows, config.polars_above)
    folder = scratch_of(config.spark, workspace)
    results = evaluate(manifest, suite, engine, cluster=config.spark, folder=folder)
    skew, notes = compare(version, manifest, config, workspace)
    critical = [result for result in results if result["severity"] == CRITICAL]
    word = next((word for word in WORST_FIRST if any(result["word"] == word for result in critical)), PASS)
    report = ValidationReport(
        dataset_digest=version.digest,
        outcome_word=word,
        n_rows=manifest.num_rows,
        engine=engine,
        results=[*results, *skew_results(skew, notes)],
        suite_digest=sha256_text(canonical_json(suite)),
        suite_source=config.suite or DEFAULT,
        suite=suite,
        skew=skew,
        profile=profile(manifest),
    )
    write_report(out, report)
    if word != PASS:
        failed = workspace.kfloop_dir / "failed" / "validation"
        failed.mkdir(parents=True, exist_ok=True)
        place = write_report(failed, report)
        _stop(next(result for result in critical if result["word"] == word), place)
    return report


def _stop(result: dict[str, Any], place: Path) -> None:
    where = f"column '{result['column']}'" if result["column"] else "the table"
    if result["word"] == ERROR:
        raise TerminalError(
            f"the check {result['expectation']} on {where} is broken: {result['detail']}",
            hint=f"mend the suite; the data were not judged. All results: {place}",
        )
    observed = f"observed {result['observed']}"
    # A long list of what is there comes after what is wrong with it.
    said = (result["detail"], observed) if isinstance(result["observed"], list) else (observed, result["detail"])
    raise InputError(
        f"the data fail {result['expectation']} on {where}: {'; '.join(part for part in said if part)}".rstrip(),
        hint=f"mend the data, or the suite if it asks too much. All results: {place}",
    )
