"""What contradicts is refused: hostile variants of the shipped manifests, and budgets drawn at random."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scripts.manifest_check import MARGIN_S, Application, contradictions, drain, grace, order, quantity
from streamlit_extension.settings import Settings
from tests.deploy.support import ROOT, changed, find, manifests

POD = "spec/template/spec"
APP = f"{POD}/containers/0"


def with_variable(found: list[dict[str, Any]], name: str, value: str | None, kind: str = "Deployment") -> Any:
    """Manifests with one variable of the application changed, added or (None) left out."""
    env = find(found, kind, "streamlit")["spec"]["template"]["spec"]["containers"][0]["env"]
    kept = [each for each in env if each["name"] != name]
    added = [] if value is None else [{"name": name, "value": value}]
    return changed(found, kind, "streamlit", f"{APP}/env", kept + added)


FIELDS = [
    (f"{POD}/terminationGracePeriodSeconds", 49, "terminationGracePeriodSeconds is 49"),
    (f"{POD}/terminationGracePeriodSeconds", ..., "terminationGracePeriodSeconds is 30"),
    (f"{APP}/lifecycle", {"preStop": {"sleep": {"seconds": 11}}}, "preStop 11"),
    (f"{APP}/lifecycle", {"preStop": {"exec": {"command": ["sh", "-c", "sleep 20"]}}}, "preStop 20"),
    (f"{APP}/readinessProbe/failureThreshold", 4, "believed after 23 s"),
    (f"{APP}/readinessProbe/periodSeconds", 7, "believed after 17 s"),
    (f"{APP}/readinessProbe/failureThreshold", ..., "believed after 18 s"),
    (f"{APP}/readinessProbe/timeoutSeconds", 6, "readinessProbe has a timeoutSeconds above"),
    (f"{APP}/livenessProbe/timeoutSeconds", 11, "livenessProbe has a timeoutSeconds above"),
    (f"{APP}/livenessProbe/failureThreshold", 1, "restarts it before the readinessProbe"),
    (f"{APP}/livenessProbe/httpGet/path", "/health/ready", "livenessProbe asks /health/ready"),
    (f"{APP}/livenessProbe/httpGet/port", 8502, "asks port 8502, where nothing listens"),
    (f"{APP}/readinessProbe/httpGet/port", "https", "asks port https, where nothing listens"),
    (f"{APP}/startupProbe", ..., "there is no startupProbe"),
    (f"{APP}/livenessProbe", ..., "there is no livenessProbe"),
    (f"{APP}/startupProbe/failureThreshold", 10, "startupProbe gives up"),
    (f"{APP}/args", ["demo", "--server.address", "127.0.0.1"], "server.address is loopback"),
    (f"{APP}/args", ["demo", "--server.address=::1"], "server.address is loopback"),
    (f"{APP}/command", ["streamlit-extension", "demo", "--server.address", "localhost"], "server.address is loopback"),
    (f"{APP}/args", ["demo", "--server.port", "9000"], "readinessProbe asks port 8501, where nothing listens"),
    (f"{APP}/args", ["demo", "--server.port=9000"], "livenessProbe asks port 8501, where nothing listens"),
    (f"{APP}/livenessProbe/httpGet/scheme", "HTTPS", "livenessProbe asks by HTTPS, and HTTP is spoken there"),
    (f"{APP}/args", ["demo", "--server.sslCertFile=/tls.crt"], "startupProbe asks by HTTP, and HTTPS is spoken"),
    (f"{APP}/livenessProbe/httpGet/host", "shop.example.org", "livenessProbe asks shop.example.org, not the pod"),
    (f"{APP}/livenessProbe/terminationGracePeriodSeconds", 5, "a terminationGracePeriodSeconds of 5 of its own"),
    (f"{APP}/lifecycle", {"preStop": {"exec": {"command": ["sleep", "1m"]}}}, "preStop 60"),
    (f"{APP}/lifecycle", {"preStop": {"exec": {"command": ["sh", "-c", "sleep 8; sleep 7s"]}}}, "preStop 15"),
    (f"{POD}/volumes/0/emptyDir/medium", "Memory", None),
    (f"{APP}/resources/limits/memory", "999Mi", None),
    (f"{POD}/volumes/0/emptyDir/sizeLimit", "0.5e9", "sizeLimit is smaller"),
    (f"{POD}/volumes/0/emptyDir/sizeLimit", "1Pi", None),
    (f"{POD}/volumes/0/emptyDir/sizeLimit", "a lot", "'a lot' is no quantity of bytes"),
    (f"{POD}/volumes", None, None),
    (f"{APP}/ports", None, None),
    (f"{APP}/volumeMounts/0/mountPath", "/elsewhere", "no volume is mounted at STX_DATA_DIR"),
    (f"{APP}/volumeMounts/0/readOnly", True, "mounted read-only"),
    (f"{POD}/volumes/0/emptyDir/sizeLimit", "600Mi", "sizeLimit is smaller than spool.max_bytes"),
    (f"{APP}/resources/limits/ephemeral-storage", "512Mi", "ephemeral-storage is smaller"),
    (f"{POD}/automountServiceAccountToken", True, "nothing asks Kubernetes"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), FIELDS)
def test_a_field_that_contradicts_is_refused(path: str, value: Any, complaint: str | None) -> None:
    """One field of the base changed, and the contradiction is named with its owner; None where there is none."""
    found = contradictions(changed(manifests("base"), "Deployment", "streamlit", path, value))
    if complaint is None:
        assert found == []
        return
    assert [line for line in found if complaint in line and line.startswith("Deployment streamlit: ")] != []


VARIABLES = [
    ("STX_SHUTDOWN_BUDGET_S", "56", "shutdown_budget_s 56"),
    ("STX_SHUTDOWN_BUDGET_S", "18", "leaves 3 s of shutdown_budget_s"),
    ("STX_SHUTDOWN_BUDGET_S", "forever", "STX_SHUTDOWN_BUDGET_S"),
    ("STX_PRE_DRAIN_S", None, "it serves for 0 s of a stop"),
    ("STX_PRE_DRAIN_S", "12", "it serves for 12 s of a stop"),
    ("STX_PRE_DRAIN_S", "45", "pre_drain_s"),
    ("STX_PATH_PREFIX", "/ops", "asks /health/live, not /ops/health/live"),
    ("STX_SPOOL__MAX_BYTES", "1073741824", "sizeLimit is smaller"),
    ("STX_MANAGEMENT_ADDRESS", "127.0.0.1", "management_address is loopback"),
    ("STX_NO_SUCH_THING", "1", "STX_NO_SUCH_THING"),
    ("STREAMLIT_SERVER_ADDRESS", None, "server.address is loopback"),
    ("STREAMLIT_SERVER_PORT", "8502", "asks port 8501, where nothing listens"),
]


@pytest.mark.parametrize(("name", "value", "complaint"), VARIABLES)
def test_a_setting_that_contradicts_is_refused(name: str, value: str | None, complaint: str) -> None:
    """One variable of the base changed, and the contradiction, or why it would not start, is named."""
    found = contradictions(with_variable(manifests("base"), name, value))
    assert [line for line in found if complaint in line] != []


def with_config_map(how: str, data: dict[str, str], **fields: Any) -> Any:
    """The base whose budget comes from a ConfigMap, and a reference to that."""
    found = with_variable(manifests("base"), "STX_SHUTDOWN_BUDGET_S", None)
    found.append({"kind": "ConfigMap", "metadata": {"name": "given", "namespace": "streamlit"}, "data": data})
    container = find(found, "Deployment", "streamlit")["spec"]["template"]["spec"]["containers"][0]
    volumes = find(found, "Deployment", "streamlit")["spec"]["template"]["spec"]["volumes"]
    container |= {"envFrom": [{"configMapRef": {"name": "given"}, **fields}]} if how == "envFrom" else {}
    container["env"] += [{"name": "STX_SHUTDOWN_BUDGET_S", **fields}] if how == "env" else []
    if how == "file":
        volumes.append({"name": "given", "configMap": {"name": "given", **fields.get("volume", {})}})
        container["volumeMounts"].append({"name": "given", **fields["mount"]})
        container["env"] += [{"name": "STX_CONFIG", "value": fields["path"]}] if "path" in fields else []
    return found


TOML = 'token_file = "/etc/token"\nshutdown_budget_s = 300\n'


@pytest.mark.parametrize(
    ("how", "data", "fields"),
    [
        ("envFrom", {"STX_SHUTDOWN_BUDGET_S": "300"}, {}),
        ("envFrom", {"SHUTDOWN_BUDGET_S": "300"}, {"prefix": "STX_"}),
        ("env", {"budget": "300"}, {"valueFrom": {"configMapKeyRef": {"name": "given", "key": "budget"}}}),
        ("file", {"o.toml": TOML}, {"mount": {"mountPath": "/etc/stx"}, "path": "/etc/stx/o.toml"}),
        ("file", {"observability.toml": TOML}, {"mount": {"mountPath": "/app"}}),
        (
            "file",
            {"settings": TOML},
            {
                "mount": {"mountPath": "/app/observability.toml", "subPath": "observability.toml"},
                "volume": {"items": [{"key": "settings", "path": "observability.toml"}]},
            },
        ),
    ],
    ids=["envFrom", "prefix", "key", "STX_CONFIG", "working folder", "items"],
)
def test_what_comes_from_a_config_map_is_a_setting_too(how: str, data: dict[str, str], fields: dict[str, Any]) -> None:
    """Variables and files that the manifests themselves bring; files of secrets are not looked for here."""
    found = with_config_map(how, data, **fields)
    (line,) = [each for each in contradictions(found) if "terminationGracePeriodSeconds" in each]
    assert "shutdown_budget_s 300" in line


def test_a_file_that_is_brought_by_somebody_else_is_left_alone() -> None:
    """What the manifests don't hold can't contradict."""
    found = with_variable(manifests("base"), "STX_CONFIG", "/etc/nobody/observability.toml")
    assert contradictions(found) == []


def test_a_variable_may_refer_to_another() -> None:
    """As Kubernetes expands it."""
    found = with_variable(with_variable(manifests("base"), "BUDGET", "300"), "STX_SHUTDOWN_BUDGET_S", "$(BUDGET)")
    assert any("shutdown_budget_s 300" in line for line in contradictions(found))


def test_a_list_of_objects_is_looked_into() -> None:
    """As `kubectl get -o yaml` writes it."""
    found = changed(manifests("base"), "Deployment", "streamlit", f"{POD}/terminationGracePeriodSeconds", 9)
    assert contradictions([{"apiVersion": "v1", "kind": "List", "items": found}]) == contradictions(found) != []


def test_a_volume_in_memory_that_does_not_fit_is_refused() -> None:
    """It takes its room from the memory's limit."""
    found = changed(manifests("base"), "Deployment", "streamlit", f"{POD}/volumes/0/emptyDir/medium", "Memory")
    found = changed(found, "Deployment", "streamlit", f"{APP}/resources/limits/memory", "1000Mi")
    assert any("emptyDir in memory, beside what is requested, is smaller" in line for line in contradictions(found))


def test_a_start_whose_slowest_check_is_too_slow_is_refused() -> None:
    """The startup probe waits for the check with the longest time-out, also where one has its own."""
    slow = with_variable(manifests("base"), "STX_HEALTH__CHECKS__DATABASE__TIMEOUT_S", "101")
    slow = with_variable(slow, "STX_HEALTH__CHECKS__DATABASE__MAX_AGE_S", "200")
    (line,) = contradictions(slow)
    assert "startupProbe gives up before a start and its slowest check may be over (121 s)" in line


def test_a_claim_that_is_too_small_is_refused() -> None:
    """The StatefulSet's volume holds the spool."""
    path = "spec/volumeClaimTemplates/0/spec/resources/requests/storage"
    found = changed(manifests("overlays/statefulset"), "StatefulSet", "streamlit", path, "512Mi")
    assert [line for line in contradictions(found) if "the claim's storage is smaller" in line] != []


def test_auto_scale_without_its_token_or_with_a_rival_is_refused() -> None:
    """The action needs a token, its own Deployment, and no HorizontalPodAutoscaler."""
    root = manifests("overlays/autoscale")
    bare = changed(root, "Deployment", "streamlit", f"{POD}/automountServiceAccountToken", False)
    assert any("no service account's token is mounted" in line for line in contradictions(bare))
    rival = [*root, find(manifests("base"), "HorizontalPodAutoscaler", "streamlit")]
    assert any("a HorizontalPodAutoscaler has the deployment" in line for line in contradictions(rival))
    other = with_variable(root, "STX_AUTOSCALE__DEPLOYMENT", "another")
    assert any("and this is not it" in line for line in contradictions(other))


def app(grace_s: int, pre_stop_s: int, budget_s: float, pre_drain_s: float, probe: dict[str, int]) -> Application:
    """An application with these times alone."""
    container = {
        "readinessProbe": probe,
        "livenessProbe": {"periodSeconds": 10},
        "lifecycle": {"preStop": {"sleep": {"seconds": pre_stop_s}}},
    }
    settings = Settings(shutdown_budget_s=budget_s, pre_drain_s=pre_drain_s)
    return Application({"kind": "Deployment"}, {"terminationGracePeriodSeconds": grace_s}, container, settings)


@given(
    grace_s=st.integers(0, 400),
    pre_stop_s=st.integers(0, 120),
    budget_s=st.floats(0.1, 300),
    pre_drain_s=st.floats(0, 120),
    probe=st.fixed_dictionaries(
        {},
        optional={
            "periodSeconds": st.integers(1, 60),
            "timeoutSeconds": st.integers(1, 60),
            "failureThreshold": st.integers(1, 10),
        },
    ),
)
def test_times_are_judged_by_what_happens(
    grace_s: int, pre_stop_s: int, budget_s: float, pre_drain_s: float, probe: dict[str, int]
) -> None:
    """A simulated stop, second by second as Kubernetes does it, and the checks agree on who is killed or missed."""
    one = app(grace_s, pre_stop_s, budget_s, pre_drain_s, probe)
    signalled = pre_stop_s  # deletion is at 0; the hook is part of the grace
    ended = signalled + budget_s
    assert (list(grace(one)) == []) == (
        grace_s - ended >= MARGIN_S - 1e-9 or grace_s >= pre_stop_s + budget_s + MARGIN_S
    )
    listeners_close = signalled + pre_drain_s
    period, timeout = probe.get("periodSeconds", 10), probe.get("timeoutSeconds", 1)
    last_failure = timeout + sum(period for _ in range(probe.get("failureThreshold", 3)))
    missed = any("readiness probe is believed" in line for line in drain(one))
    assert missed == (listeners_close < last_failure)
    too_little = any("leaves" in line for line in drain(one))
    assert too_little == (budget_s - pre_drain_s < 5)
    assert (list(order(one)) == []) == (period * probe.get("failureThreshold", 3) < 30)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1Gi", 2**30), ("600Mi", 600 * 2**20), ("1.5G", 1.5e9), ("12", 12), ("5k", 5000), ("2E3", 2000), ("1500m", 1.5)],
)
def test_quantities(text: str, count: float) -> None:
    """Binary and decimal units are read as Kubernetes does."""
    assert quantity(text) == count


@pytest.mark.parametrize("text", ["", "Gi", "1GiB", "1e3x", "-1", "lots"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """A size that is not understood is no size."""
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)


@pytest.mark.parametrize(("budget", "code"), [("45", 0), ("300", 1)])
def test_it_reads_what_kustomize_writes(budget: str, code: int) -> None:
    """As a command it says one line for each contradiction and ends with 1, or says nothing and ends with 0."""
    text = io.StringIO()
    yaml.safe_dump_all(with_variable(manifests("base"), "STX_SHUTDOWN_BUDGET_S", budget), text)
    command = [sys.executable, "scripts/manifest_check.py"]
    done = subprocess.run(command, input=text.getvalue(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (code, code, "")


@pytest.mark.parametrize(
    ("text", "said"), [("", "nothing was looked at"), ("{", "this is no YAML"), ("- 1", "nothing")]
)
def test_what_holds_no_application_is_no_success(text: str, said: str) -> None:
    """`kubectl kustomize NOWHERE | manifest_check.py` does not pass."""
    command = [sys.executable, "scripts/manifest_check.py"]
    done = subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (1, 1, "")
    assert done.stdout.startswith(said)
