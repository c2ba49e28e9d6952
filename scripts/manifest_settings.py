"""What a container's manifest makes of the application: its variables, words and settings file, from all manifests."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from streamlit_extension.settings import Settings

Manifest = Mapping[str, Any]

#: Where the image starts, and looks for observability.toml.
WORKING_DIR: Final = "/app"
_REFERENCE: Final = re.compile(r"\$(\$)?\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


def flat(manifests: Sequence[Any]) -> list[Any]:
    """Return single objects of what may be lists of them, without the fields that are null (absent, to Kubernetes)."""
    found: list[Any] = []
    for each in map(_without_nulls, manifests):
        found += flat(each.get("items", ())) if each.get("kind", "").endswith("List") else [each]
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value if each is not None] if isinstance(value, list) else value


def environment(container: Manifest, owner: Manifest, others: Sequence[Manifest]) -> dict[str, str]:
    """Return the variables whose values are known: written, from a ConfigMap of these manifests, or the namespace."""
    found: dict[str, str] = {}
    for each in container.get("envFrom", ()):
        data = _config_map(each.get("configMapRef", {}).get("name"), owner, others)
        found |= {f"{each.get('prefix', '')}{key}": str(value) for key, value in data.items()}
    for each in container.get("env", ()):
        value = _value(each, owner, others)
        if value is None:
            found.pop(each["name"], None)  # it hides one from envFrom, and is known to nobody here
        else:
            found[each["name"]] = _REFERENCE.sub(lambda part: _referred(part, found), value)
    return found


def _value(variable: Manifest, owner: Manifest, others: Sequence[Manifest]) -> str | None:
    if "value" in variable or "valueFrom" not in variable:
        return str(variable.get("value", ""))
    source = variable["valueFrom"]
    if source.get("fieldRef", {}).get("fieldPath") == "metadata.namespace":
        return str(owner["metadata"].get("namespace", "default"))
    reference = source.get("configMapKeyRef", {})
    value = _config_map(reference.get("name"), owner, others).get(reference.get("key"))
    return None if value is None else str(value)


def _referred(part: re.Match[str], known: Mapping[str, str]) -> str:
    """`$(NAME)` is that variable, and stays as it is where there is none; `$$(NAME)` is no reference."""
    return part[0][1:] if part[1] else known.get(part[2], part[0])


def _config_map(name: object, owner: Manifest, others: Sequence[Manifest]) -> Mapping[str, Any]:
    wanted = ("ConfigMap", name, owner["metadata"].get("namespace"))
    for each in others:
        if (each.get("kind"), each["metadata"].get("name"), each["metadata"].get("namespace")) == wanted:
            found: Mapping[str, Any] = each.get("data", {})
            return found
    return {}


def option(container: Manifest, name: str) -> str | None:
    """Return an option of the command line, the last one; `--name value` and `--name=value` are the same."""
    words = [str(each) for each in (*container.get("command", ()), *container.get("args", ()))]
    found = None
    for number, word in enumerate(words):
        if word.startswith(f"{name}="):
            found = word.partition("=")[2]
        elif word == name and number + 1 < len(words):
            found = words[number + 1]
    return found


def settings_of(environ: Mapping[str, str], container: Manifest, pod: Manifest, config: Sequence[Manifest]) -> Settings:
    """Return the settings that variables and a mounted file make; what comes from elsewhere is left at its default.

    Raises:
        SettingsError: the application would not start.
    """
    given = {name: value for name, value in environ.items() if not name.endswith("_FILE") and name != "STX_CONFIG"}
    place = PurePosixPath(container.get("workingDir", WORKING_DIR))
    text = _mounted(place / environ.get("STX_CONFIG", "observability.toml"), container, pod, config)
    with tempfile.TemporaryDirectory() as folder:
        if text is not None:
            # Files of secrets are where the application runs, not here.
            known = re.sub(r"(?m)^\s*\w+_file\s*=.*$", "", text)
            (Path(folder) / "observability.toml").write_text(known, encoding="utf-8")
        return Settings.load(given, Path(folder))


def _mounted(path: PurePosixPath, container: Manifest, pod: Manifest, config: Sequence[Manifest]) -> str | None:
    """The text of a file that a ConfigMap of these manifests is mounted as."""
    volumes = {each["name"]: each.get("configMap") for each in pod.get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        volume = volumes.get(mount["name"])
        if volume is None or not path.is_relative_to(mount["mountPath"]):
            continue
        inside = str(mount.get("subPath") or path.relative_to(mount["mountPath"]))
        keys = {each["path"]: each["key"] for each in volume.get("items", ())} or {inside: inside}
        for each in config:
            if each["metadata"].get("name") == volume.get("name") and keys.get(inside) in each.get("data", {}):
                return str(each["data"][keys[inside]])
    return None


def config_maps(owner: Manifest, others: Sequence[Manifest]) -> Iterator[Manifest]:
    """The ConfigMaps of an owner's namespace."""
    for each in others:
        if each.get("kind") == "ConfigMap" and each["metadata"].get("namespace") == owner["metadata"].get("namespace"):
            yield each
