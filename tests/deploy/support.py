"""What is deployed as its own tools read it: kustomize's builds, Docker's parsers, and the files of the repository."""

from __future__ import annotations

import copy
import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.stack import built

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
COMPONENTS = sorted(path.parent.name for path in KUBERNETES.glob("components/*/kustomization.yaml"))
#: Everything that can be applied: the base and each overlay.
ROOTS = ["base", *sorted(f"overlays/{path.parent.name}" for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))]


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """The manifests of a kustomization."""
    done = subprocess.run(
        [built("kustomize", "kustomize"), "build", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@functools.cache
def _built(root: str) -> str:
    return json.dumps(kustomize(KUBERNETES / root))


def manifests(root: str) -> list[dict[str, Any]]:
    """The manifests of the base or of an overlay, to be changed at will."""
    made: list[dict[str, Any]] = json.loads(_built(root))
    return made


def combined(folder: Path, *components: str) -> list[dict[str, Any]]:
    """The manifests of the base with components, as a user would put them together."""
    there = Path(*[".."] * len(folder.relative_to(folder.anchor).parts)) / KUBERNETES.relative_to(folder.anchor)
    words = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(there / "base")],
        "components": [str(there / "components" / each) for each in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(words))
    return kustomize(folder)


def find(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one object of a kind and a name; generated names are found by what stands before their hash."""
    hashed = re.compile(rf"{re.escape(name)}-[a-z0-9]{{10}}")
    named = [each for each in found if each["kind"] == kind and each["metadata"]["name"] == name]
    (only,) = named or [e for e in found if e["kind"] == kind and hashed.fullmatch(e["metadata"]["name"])]
    return only


def pods(found: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each owner of pods with its pods' template."""
    for each in found:
        if each["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            yield each, each["spec"]["template"]


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """A container's variables: name → value, or where it is from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", ())}


def docker(reader: str, path: Path) -> Any:
    """What one of Docker's parsers makes of a file or a folder."""
    command = [built("containers", "containers"), reader, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def collector_variables(*names: str) -> set[str]:
    """The variables that configurations of the collector read."""
    return {each for name in names for each in re.findall(r"\$\{env:(\w+)", (ROOT / name).read_text(encoding="utf-8"))}


def changed(found: list[dict[str, Any]], kind: str, name: str, path: str, value: Any) -> list[dict[str, Any]]:
    """A copy in which one field of one object is another, or gone (`...`); a path such as `spec/replicas`."""
    made = copy.deepcopy(found)
    place: Any = find(made, kind, name)
    *before, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in before:
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return made
