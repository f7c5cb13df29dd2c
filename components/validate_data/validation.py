"""Judging a dataset version by Great Expectations: bad data fails, a broken check is an error, and both stop."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data.manifest import build_manifest
from kfloop.components.validate_data.suites import CRITICAL, default_suite, load_suite
from kfloop.core.artifacts import canonical_json, plain, sha256_text, write_report
from kfloop.core.versions import read_version
from kfloop.errors import ConfigError, InputError, TerminalError

if TYPE_CHECKING:
    import pandas as pd

    from kfloop.core.sections import ValidationConfig
    from kfloop.core.workspace import Workspace

PASS, FAIL, ERROR = "pass", "fail", "error"
WORST_FIRST = (ERROR, FAIL, PASS)
DETAIL_LENGTH = 300


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """What the suite says about one dataset version.

    Attributes:
        outcome_word: ``pass``, ``fail`` (bad data) or ``error`` (a broken check), over the critical expectations.
        n_rows: Rows judged.
        results: One entry for each expectation.
        suite_digest: Digest of the suite.
    """

    outcome_word: str
    n_rows: int
    results: list[dict[str, Any]]
    suite_digest: str


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
        ConfigError: The suite file is none.
    """
    version = read_version(dataset)
    suite = load_suite(Path(config.suite)) if config.suite else default_suite(version)
    manifest = build_manifest(version)
    results = evaluate(manifest, suite)
    critical = [result for result in results if result["severity"] == CRITICAL]
    word = next((word for word in WORST_FIRST if any(result["word"] == word for result in critical)), PASS)
    report = ValidationReport(
        outcome_word=word, n_rows=len(manifest), results=results, suite_digest=sha256_text(canonical_json(suite))
    )
    write_report(out, report)
    if word != PASS:
        failed = workspace.kfloop_dir / "failed" / "validation"
        failed.mkdir(parents=True, exist_ok=True)
        place = write_report(failed, report)
        _stop(next(result for result in critical if result["word"] == word), place)
    return report


def evaluate(manifest: pd.DataFrame, suite: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each expectation's result on the manifest: expectation, column, severity, passed, word, observed, detail."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("kfloop").add_dataframe_asset("manifest")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": manifest})
    results = []
    for item in suite:
        try:
            expectation = ExpectationConfiguration(type=item["type"], kwargs=item["kwargs"]).to_domain_obj()
        except Exception as error:  # whatever Great Expectations raises on a name or argument it does not know
            raise ConfigError(
                f"the suite has an unusable expectation {item['type']!r}: {error}",
                hint="see the list of Great Expectations",
            ) from error
        results.append(_result(item, batch.validate(expectation, result_format="SUMMARY").to_json_dict()))
    return results


def _result(item: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    broken = _exception(found.get("exception_info", {}))
    passed = bool(found["success"]) and not broken
    details = found.get("result", {})
    unexpected = details.get("partial_unexpected_list", [])
    observed = details.get("observed_value", details.get("unexpected_count"))
    return {
        "expectation": item["type"],
        "column": item["kwargs"].get("column", ""),
        "severity": item["severity"],
        "passed": passed,
        "word": ERROR if broken else (PASS if passed else FAIL),
        "observed": plain(observed),
        "detail": (broken or (f"unexpected: {unexpected[:5]}" if unexpected and not passed else ""))[:DETAIL_LENGTH],
    }


def _exception(info: dict[str, Any]) -> str:
    """Message of an exception inside a check; its shape differs between expectations of a column and of a table."""
    entries = [info, *(entry for entry in info.values() if isinstance(entry, dict))]
    return next((str(entry["exception_message"]) for entry in entries if entry.get("raised_exception")), "")


def _stop(result: dict[str, Any], place: Path) -> None:
    where = f"column '{result['column']}'" if result["column"] else "the table"
    if result["word"] == ERROR:
        raise TerminalError(
            f"the check {result['expectation']} on {where} is broken: {result['detail']}",
            hint=f"mend the suite; the data were not judged. All results: {place}",
        )
    raise InputError(
        f"the data fail {result['expectation']} on {where}: observed {result['observed']} {result['detail']}".rstrip(),
        hint=f"mend the data, or the suite if it asks too much. All results: {place}",
    )
