"""Write what deploy/kubernetes holds of other files: `manifests.py` writes, `manifests.py --check` says what is old.

kustomize reads nothing from above the folder of its own file, so the collector's configuration is copied; the
operator's PrometheusRule is the exported rules under a head.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "collector-config.yaml"
RULES = "deploy/prometheus/streamlit-extension.rules.yaml"
_RULE_HEAD = """\
# {first} `make manifests` puts them here.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: streamlit-extension
  namespace: streamlit
spec:
"""


def prometheus_rule(rules: str) -> str:
    """Return exported rules, which begin with one line of comment, as the operator's object."""
    comment, _, body = rules.partition("\n")
    lines = [f"  {line}" if line else line for line in body.splitlines()]
    return _RULE_HEAD.format(first=comment.removeprefix("#").strip()) + "\n".join(lines) + "\n"


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Return what each generated file has to hold."""
    kubernetes = root / "deploy" / "kubernetes"
    return {
        kubernetes / "base" / "collector" / CONFIG: (root / CONFIG).read_text(encoding="utf-8"),
        kubernetes / "components" / "monitoring" / "rules.yaml": prometheus_rule(
            (root / RULES).read_text(encoding="utf-8")
        ),
    }


def old(root: Path = ROOT) -> list[Path]:
    """Return the generated files that are not what they should be."""
    return [
        path for path, text in generated(root).items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` only say which are old and return 1."""
    found = old()
    for path in found:
        print(path.relative_to(ROOT))
        if "--check" not in arguments:
            path.write_text(generated()[path], encoding="utf-8")
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
