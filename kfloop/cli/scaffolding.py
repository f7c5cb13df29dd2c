"""What ``kfloop new`` writes, as templates: ``$name`` is the component, ``$package`` what its folder is imported as."""

from __future__ import annotations

from string import Template

SHELL = Template('''"""The KFP shell of ``$name``."""

from kfp import dsl

from kfloop.core.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def $name(limit: int, dataset: dsl.Input[dsl.Dataset], result: dsl.Output[dsl.Artifact]) -> str:
    """Say here in one sentence what $name does.

    Args:
        limit: Most rows to read.
        dataset: Dataset version.
        result: Folder with what was made.

    Returns:
        What the next steps depend on, in one word.
    """
    from pathlib import Path

    from $package.$name.core import run

    return run(Path(dataset.path), limit=limit, out=Path(result.path))
''')

CORE = Template('''"""The core of ``$name``: plain functions that know nothing of KFP, and import what is heavy where they use it."""

from __future__ import annotations

from pathlib import Path


def run(dataset: Path, *, limit: int, out: Path) -> str:
    """Do the work of the step.

    Args:
        dataset: Folder of a dataset version.
        limit: Most rows to read.
        out: Folder to make and to fill; always with ``report.json``.

    Returns:
        The outcome, in one word.
    """
    message = f"write what $name makes of {limit} rows of {dataset} into {out}"
    raise NotImplementedError(message)
''')

README = Template("""# $name

Say here in one sentence what it is for.

| | |
|---|---|
| in | `dataset` (a dataset version), `limit` (most rows to read) |
| out | `result`, a folder with `report.json`: name its keys |
| returns | the outcome, in one word |
| errors | say which, and when |

```python
from pathlib import Path

from $package.$name.core import run

print(run(Path("dataset"), limit=100, out=Path("result")))
```
""")

TESTED = "from $package.$name import component"  # the module: a component may be called as something in the test
KIT = "from kfloop.testing import Harness\nfrom kfloop.testing.plugin import harness  # noqa: F401"
TEST = Template('''"""What ``$name`` promises. It fails until ``core.py`` keeps it; then say here what else must hold, bad input included."""

from __future__ import annotations

import json
from pathlib import Path

${imports}


def test_${name}_writes_a_report_and_says_how_it_ended(harness: Harness, tmp_path: Path) -> None:  # noqa: F811
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    run = harness.run(component.$name, dataset=dataset, limit=10)
    report = json.loads((run.artifacts["result"] / "report.json").read_text(encoding="utf-8"))
    assert run.value == report["outcome"]
''')

GITHUB = Template("""# Written by: kfloop new workflow github
name: kfloop

on:
  push:
    branches: [main]
  pull_request:

permissions:
  contents: read

jobs:
  check:
    runs-on: ubuntu-24.04
    timeout-minutes: 30
    permissions:
      contents: read
      security-events: write # findings beside the lines of the pull request
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
          cache: pip
          cache-dependency-path: .github/workflows/kfloop.yaml # which names what is installed
      - run: python -m pip install "kfloop==$version" pytest
      - name: What your own code imports
        run: "if [ -f requirements.txt ]; then python -m pip install -r requirements.txt; fi"
      - name: The committed pipelines are what the code compiles to
        if: hashFiles('loop.yaml') != '' # pipelines of your own: kfloop check compares them
        run: |
          kfloop compile
          git add --intent-to-add pipelines/compiled # files that nobody committed count too
          git diff --exit-code -- pipelines/compiled
      - name: Components, loop files and compiled pipelines
        run: kfloop check --format sarif > kfloop.sarif
      - if: always() && hashFiles('kfloop.sarif') != ''
        continue-on-error: true # a private repository may have no code scanning; the log has the findings too
        uses: github/codeql-action/upload-sarif@v3
        with:
          sarif_file: kfloop.sarif
      - name: Tests of components
        run: "if [ -d tests ]; then python -m pytest tests; fi"
""")

GITLAB = Template("""# Written by: kfloop new workflow gitlab
stages: [check]

kfloop:
  stage: check
  image: python:3.11-slim
  timeout: 30 minutes
  variables:
    PIP_CACHE_DIR: "$$CI_PROJECT_DIR/.cache/pip"
  cache:
    paths: [.cache/pip]
  before_script:
    - apt-get update && apt-get install --yes --no-install-recommends git
    - python -m pip install "kfloop==$version" pytest
    - if [ -f requirements.txt ]; then python -m pip install -r requirements.txt; fi # what your own code imports
  script:
    - | # pipelines of your own: kfloop check compares them
      if [ -f loop.yaml ]; then
        kfloop compile
        git add --intent-to-add pipelines/compiled # files that nobody committed count too
        git diff --exit-code -- pipelines/compiled
      fi
    - kfloop check --format json > kfloop.json
    - if [ -d tests ]; then python -m pytest tests; fi
  artifacts:
    when: always
    paths: [kfloop.json]
  rules:
    - if: $$CI_PIPELINE_SOURCE == "merge_request_event"
    - if: $$CI_COMMIT_BRANCH == $$CI_DEFAULT_BRANCH
""")


def component_test(name: str, package: str) -> str:
    """The test, with imports in the order that a linter wants: kfloop is one's own package in its checkout, and another elsewhere."""
    tested = Template(TESTED).substitute(name=name, package=package)
    imports = f"{tested}\n{KIT}" if package.startswith("kfloop.") else f"{KIT}\n\n{tested}"
    return TEST.substitute(name=name, package=package, imports=imports)
