# ruff: noqa: INP001 - a script, part of no package
"""Write the rules and the dashboard for Kubernetes from the files that ``kfloop metrics`` prints: ``python infra/generate.py``.

kustomize reads nothing from outside its own folders, so these are copies; tests/infra checks that they are equal to their sources.
"""

from pathlib import Path

INFRA = Path(__file__).parent
SOURCES = INFRA.parent / "kfloop" / "cli" / "operations"
RULE = """\
# Written by infra/generate.py from kfloop/cli/operations/alerts.yaml: change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kfloop
  labels: {app.kubernetes.io/part-of: kfloop}
spec:
"""


def generated() -> dict[Path, str]:
    """What each file should hold."""
    alerts = (SOURCES / "alerts.yaml").read_text(encoding="utf-8")
    indented = "".join(f"  {line}" if line.strip() else line for line in alerts.splitlines(keepends=True))
    components = INFRA / "components"
    return {
        components / "monitoring" / "alerts.yaml": alerts,
        components / "monitoring" / "dashboard.json": (SOURCES / "dashboard.json").read_text(encoding="utf-8"),
        components / "prometheus-operator" / "kfloop-alerts.yaml": RULE + indented,
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
