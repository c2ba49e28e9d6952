"""Say where manifests contradict the application's settings: `kubectl kustomize FOLDER | manifest_check.py`.

One line for each contradiction and exit code 1, or nothing and 0. The settings are those that the container's `STX_*`
variables and its observability.toml make, also where they come from ConfigMaps. It reads YAML with PyYAML.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from scripts.manifest_settings import (  # noqa: E402  (found through the line above)
    Manifest,
    config_maps,
    environment,
    flat,
    option,
    settings_of,
)
from streamlit_extension.settings import Settings, SettingsError  # noqa: E402

#: Kubernetes' own defaults, seconds and counts (API reference: Probe, PodSpec).
DEFAULT_GRACE_S: Final = 30
PROBE_DEFAULTS: Final = {"initialDelaySeconds": 0, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3}
PROBES: Final = {
    "startupProbe": "/health/startup",
    "livenessProbe": "/health/live",
    "readinessProbe": "/health/ready",
}
#: Between the budget's end and SIGKILL: for an interpreter that ends, on a busy node.
MARGIN_S: Final = 5.0
#: What the phases after the pre-drain need at least, to end runs and to send telemetry.
LEAST_DRAIN_S: Final = 5.0
#: What a start takes on a busy node before its first checks.
START_S: Final = 20.0
#: SQLite's log and the records that are being written take room beside the spool.
ROOM: Final = 1.25
_UNITS: Final = {"m": 1e-3, "": 1, "k": 10**3} | {
    f"{prefix}{i}": base**power for i, base in (("", 1000), ("i", 1024)) for power, prefix in enumerate("KMGTPE", 1)
}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Application:
    """One container that runs the application, its pod and owner, its settings, and all manifests."""

    owner: Manifest
    pod: Manifest
    container: Manifest
    settings: Settings
    others: Sequence[Manifest] = ()
    environ: dict[str, str] = field(default_factory=dict)

    def probe(self, kind: str) -> dict[str, Any] | None:
        """Return a probe with Kubernetes' defaults filled in."""
        found = self.container.get(kind)
        return None if found is None else {**PROBE_DEFAULTS, **found}

    def window_s(self, kind: str) -> float:
        """Return how long a probe must fail before it counts, at most; 0 without it."""
        probe = self.probe(kind)
        return 0.0 if probe is None else float(probe["periodSeconds"] * probe["failureThreshold"])

    @property
    def pre_stop_s(self) -> float:
        """How long a preStop hook delays the signal: `sleep`, or an exec of the program of that name."""
        hook = self.container.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            return float(hook["sleep"].get("seconds", 0))
        said = " ".join(str(each) for each in hook.get("exec", {}).get("command", ()))
        return sum(float(time) * _SECONDS[unit] for time, unit in re.findall(r"\bsleep (\d+(?:\.\d+)?)([smhd]?)", said))

    def setting(self, name: str, default: str) -> str:
        """A setting of Streamlit's, such as `server.port`: from the command line, else its variable."""
        variable = f"STREAMLIT_{re.sub('(?<=[a-z])(?=[A-Z])', '_', name).replace('.', '_').upper()}"
        return option(self.container, f"--{name}") or self.environ.get(variable, default)


Check = Callable[[Application], Iterator[str]]


def contradictions(manifests: Sequence[Manifest]) -> list[str]:
    """Return what contradicts, one line each, in all containers that have a variable `STX_…`."""
    found: list[str] = []
    for owner, pod, container, environ, others in applications(manifests):
        name = f"{owner['kind']} {owner['metadata']['name']}"
        try:
            settings = settings_of(environ, container, pod, list(config_maps(owner, others)))
            application = Application(owner, pod, container, settings, others, environ)
            found += [f"{name}: {line}" for check in CHECKS for line in check(application)]
        except (SettingsError, QuantityError) as error:
            found.append(f"{name}: {error}")
    return found


_Found = tuple[Manifest, Manifest, Manifest, dict[str, str], Sequence[Manifest]]


def applications(manifests: Sequence[Manifest]) -> Iterator[_Found]:
    """Each container with a variable `STX_…`: its owner, its pod, itself, its variables, and all manifests."""
    everything = flat(manifests)
    for owner in everything:
        pod = owner.get("spec", {}).get("template", {}).get("spec", {}) if owner.get("kind") in _OWNERS else {}
        for container in pod.get("containers", ()):
            environ = environment(container, owner, everything)
            if any(name.startswith("STX_") for name in environ):
                yield owner, pod, container, environ, everything


_OWNERS: Final = ("Deployment", "StatefulSet", "DaemonSet")


# -- times ----------------------------------------------------------------------------------------------------------


def grace(app: Application) -> Iterator[str]:
    """SIGKILL comes after the budget."""
    given = float(app.pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S))
    wanted = app.pre_stop_s + app.settings.shutdown_budget_s + MARGIN_S
    if given < wanted:
        yield (
            f"terminationGracePeriodSeconds is {given:g}, and a stop may take {wanted:g} s: preStop "
            f"{app.pre_stop_s:g}, shutdown_budget_s {app.settings.shutdown_budget_s:g} and {MARGIN_S:g} to end"
        )
    for kind in ("livenessProbe", "startupProbe"):
        own = (app.probe(kind) or {}).get("terminationGracePeriodSeconds", wanted)
        if own < wanted:
            yield f"{kind} has a terminationGracePeriodSeconds of {own:g} of its own, and a stop may take {wanted:g} s"


def drain(app: Application) -> Iterator[str]:
    """Load balancers have noticed before the listeners close, and then there is time left."""
    serves_s = app.pre_stop_s + app.settings.pre_drain_s
    probe = app.probe("readinessProbe")
    if probe is not None and serves_s < app.window_s("readinessProbe") + probe["timeoutSeconds"]:
        yield (
            f"it serves for {serves_s:g} s of a stop (preStop and pre_drain_s), and the readiness probe is believed "
            f"after {app.window_s('readinessProbe') + probe['timeoutSeconds']:g} s"
        )
    left_s = app.settings.shutdown_budget_s - app.settings.pre_drain_s
    if left_s < LEAST_DRAIN_S:
        yield f"pre_drain_s leaves {left_s:g} s of shutdown_budget_s for runs, clean-up and telemetry"


def probes(app: Application) -> Iterator[str]:
    """Each probe is there, asks what it is for at a port that answers, and is over before its next one."""
    ports = {each.get("name"): each["containerPort"] for each in app.container.get("ports", ())}
    answering = {app.setting("server.port", "8501"), str(app.settings.management_port)}
    scheme = "HTTPS" if app.setting("server.sslCertFile", "") else "HTTP"
    for kind, path in PROBES.items():
        probe = app.probe(kind)
        if probe is None:
            yield f"there is no {kind}"
            continue
        asked = probe.get("httpGet", {})
        if asked.get("path") != app.settings.path_prefix + path:
            yield f"{kind} asks {asked.get('path')}, not {app.settings.path_prefix + path}"
        if str(ports.get(asked.get("port"), asked.get("port"))) not in answering:
            yield f"{kind} asks port {asked.get('port')}, where nothing listens"
        if asked.get("scheme", "HTTP") != scheme:
            yield f"{kind} asks by {asked.get('scheme', 'HTTP')}, and {scheme} is spoken there"
        if "host" in asked:
            yield f"{kind} asks {asked['host']}, not the pod"
        if probe["timeoutSeconds"] > probe["periodSeconds"]:
            yield f"{kind} has a timeoutSeconds above its periodSeconds"


def start(app: Application) -> Iterator[str]:
    """A start is not killed before the first run of every check can be over."""
    health = app.settings.health
    wanted = START_S + max([health.timeout_s, *(health.for_check(name).timeout_s for name in health.checks)])
    kind = "startupProbe" if app.probe("startupProbe") is not None else "livenessProbe"
    probe = app.probe(kind)
    if probe is not None and probe["initialDelaySeconds"] + app.window_s(kind) < wanted:
        yield f"{kind} gives up before a start and its slowest check may be over ({wanted:g} s)"


def order(app: Application) -> Iterator[str]:
    """Who is in trouble is taken out of service before it is restarted, which ends its sessions."""
    if app.probe("livenessProbe") and app.window_s("livenessProbe") <= app.window_s("readinessProbe"):
        yield "livenessProbe restarts it before the readinessProbe takes it out of service"


# -- places ---------------------------------------------------------------------------------------------------------


def addresses(app: Application) -> Iterator[str]:
    """The kubelet asks the pod's address, where loopback doesn't listen."""
    if _is_loopback(app.setting("server.address", "127.0.0.1")):
        yield "server.address is loopback: no probe reaches it (STREAMLIT_SERVER_ADDRESS=0.0.0.0)"
    exposed = any(each["containerPort"] == app.settings.management_port for each in app.container.get("ports", ()))
    if exposed and _is_loopback(app.settings.management_address):
        yield "the management port is exposed, and management_address is loopback"


def _is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or address.startswith("127.")


def data_folder(app: Application) -> Iterator[str]:
    """The data folder is on a volume that can be written and that holds the whole spool."""
    folder = PurePosixPath(app.environ.get("STX_DATA_DIR", "/"))
    mounts = [each for each in app.container.get("volumeMounts", ()) if folder.is_relative_to(each["mountPath"])]
    mount = max(mounts, key=lambda each: len(each["mountPath"]), default=None)
    if mount is None:
        if app.container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            yield f"the root file system is read-only, and no volume is mounted at STX_DATA_DIR ({folder})"
        return
    if mount.get("readOnly"):
        yield f"the volume of STX_DATA_DIR ({folder}) is mounted read-only"
    wanted = app.settings.spool.max_bytes * ROOM
    for what, given in _sizes(app, mount["name"]):
        if given < wanted:
            yield f"{what} is smaller than spool.max_bytes and the room beside it ({wanted / 2**20:.0f} MiB)"


def _sizes(app: Application, volume: str) -> Iterator[tuple[str, float]]:
    for claim in app.owner["spec"].get("volumeClaimTemplates", ()):
        if claim["metadata"]["name"] == volume:
            asked: dict[str, Any] = claim["spec"].get("resources", {}).get("requests", {})
            yield "the claim's storage", quantity(asked.get("storage", 0))
    for each in app.pod.get("volumes", ()):
        if each["name"] == volume and "emptyDir" in each:
            limits, wanted = (app.container.get("resources", {}).get(each, {}) for each in ("limits", "requests"))
            for what, text in (
                ("the emptyDir's sizeLimit", each["emptyDir"].get("sizeLimit")),
                ("the limit of ephemeral-storage", limits.get("ephemeral-storage")),
            ):
                if text is not None:
                    yield what, quantity(text)
            if each["emptyDir"].get("medium") == "Memory" and "memory" in limits:
                left = quantity(limits["memory"]) - quantity(wanted.get("memory", limits["memory"]))
                yield "what the limit of memory leaves for an emptyDir in memory, beside what is requested,", left


class QuantityError(ValueError):
    """A text is no quantity of bytes."""


@functools.cache
def quantity(text: object) -> float:
    """Return a Kubernetes quantity of bytes, such as `512Mi`, `1G` or `1e9`."""
    match = re.fullmatch(r"\+?(\d+\.?\d*|\.\d+)(?:([mkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,3}))?", str(text))
    if match is None:
        raise QuantityError(f"{text!r} is no quantity of bytes")
    return float(match[1]) * float(_UNITS[match[2] or ""]) * 10.0 ** int(match[3] or 0)


# -- scale ----------------------------------------------------------------------------------------------------------


def scale(app: Application) -> Iterator[str]:
    """The own auto-scale has what it needs and no rival; without it no token lies in the pod."""
    metadata, own = app.owner["metadata"], app.settings.autoscale
    account = next((each for each in app.others if _is_account(each, app)), {})
    by_account = account.get("automountServiceAccountToken", True)
    has_token = app.pod.get("automountServiceAccountToken", by_account)
    if not (own.namespace and own.deployment):
        if has_token:
            yield "a service account's token is mounted, and nothing asks Kubernetes"
        return
    this = (app.owner["kind"], metadata.get("namespace", "default"), metadata["name"])
    if this != ("Deployment", own.namespace, own.deployment):
        yield f"autoscale names the Deployment {own.namespace}/{own.deployment}, and this is not it"
    if not has_token:
        yield "autoscale is on, and no service account's token is mounted"
    if any(_scales(each, own.deployment) for each in app.others):
        yield "autoscale is on, and a HorizontalPodAutoscaler has the deployment"


def _is_account(each: Manifest, app: Application) -> bool:
    wanted = (app.pod.get("serviceAccountName", "default"), app.owner["metadata"].get("namespace"))
    metadata = each["metadata"]
    return each["kind"] == "ServiceAccount" and (metadata["name"], metadata.get("namespace")) == wanted


def _scales(each: Manifest, deployment: str) -> bool:
    if each["kind"] != "HorizontalPodAutoscaler":
        return False
    return bool(each["spec"]["scaleTargetRef"]["name"] == deployment)


CHECKS: Final[tuple[Check, ...]] = (grace, drain, probes, start, order, addresses, data_folder, scale)


def main() -> int:
    """Read manifests from standard input, say what contradicts."""
    import yaml

    try:
        manifests = [each for each in yaml.safe_load_all(sys.stdin) if isinstance(each, dict)]
    except yaml.YAMLError as error:
        print(f"this is no YAML: {' '.join(str(error).split())}")
        return 1
    found = contradictions(manifests)
    if not any(applications(manifests)):
        found = ["nothing was looked at: there is no container with a variable STX_…"]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
