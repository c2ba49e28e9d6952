"""What the stack consists of: how each program is started, and which of the shipped files and variables it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scripts.stack import Stack

ROOT: Final = Path(__file__).resolve().parents[1]
#: Ports that programs have by default; `up` takes free ones in their place where they are taken.
PORTS: Final = {
    "otlp_grpc": 4317, "otlp_http": 4318, "collector_health": 13133, "collector_metrics": 8888, "scrape": 8889,
    "jaeger_otlp": 14317, "jaeger": 16686, "jaeger_grpc": 16685, "jaeger_health": 14133,
    "victorialogs": 9428, "prometheus": 9090,
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """How a program is built, started and asked for its health."""

    name: str
    module: str
    arguments: Callable[[Stack], Sequence[str]]
    health: Callable[[Stack], str]


def environment(stack: Stack) -> dict[str, str]:
    """What the shipped files read: one place for every end point."""
    return {
        "COLLECTOR_OTLP_GRPC": stack.address("otlp_grpc"),
        "COLLECTOR_OTLP_HTTP": stack.address("otlp_http"),
        "COLLECTOR_HEALTH": stack.address("collector_health"),
        "COLLECTOR_METRICS_PORT": str(stack.ports["collector_metrics"]),
        "COLLECTOR_SCRAPE": stack.address("scrape"),
        "COLLECTOR_TRACES_ENDPOINT": stack.address("jaeger_otlp"),
        "COLLECTOR_PROMETHEUS_ENDPOINT": f"{stack.url('prometheus')}/api/v1/otlp",
        "COLLECTOR_LOGS_ENDPOINT": f"{stack.url('victorialogs')}/insert/opentelemetry/v1/logs",
        "COLLECTOR_QUEUE_DIR": str(stack.data("otelcol")),
        "OTEL_TRACES_SAMPLER": "always_off",  # Jaeger's own
        "JAEGER_OTLP": stack.address("jaeger_otlp"),
        "JAEGER_HTTP": stack.address("jaeger"),
        "JAEGER_GRPC": stack.address("jaeger_grpc"),
        "JAEGER_HEALTH": stack.address("jaeger_health"),
    }


def _jaeger(stack: Stack) -> Sequence[str]:
    return [f"--config={ROOT / 'deploy' / 'jaeger' / 'config.yaml'}"]


def _victorialogs(stack: Stack) -> Sequence[str]:
    return [
        f"-httpListenAddr={stack.address('victorialogs')}", f"-storageDataPath={stack.data('victoria-logs')}",
        "-retentionPeriod=7d", "-inmemoryDataFlushInterval=1s",
    ]  # fmt: skip


def _prometheus(stack: Stack) -> Sequence[str]:
    return [
        f"--config.file={stack.prometheus or ROOT / 'deploy' / 'prometheus' / 'prometheus.yaml'}",
        f"--storage.tsdb.path={stack.data('prometheus')}", f"--web.listen-address={stack.address('prometheus')}",
        "--web.enable-otlp-receiver", "--enable-feature=exemplar-storage", "--web.enable-remote-write-receiver",
    ]  # fmt: skip


def _collector(stack: Stack) -> Sequence[str]:
    return [f"--config={each}" for each in (ROOT / "collector-config.yaml", *stack.layers)]


#: In the order of their start: who receives comes before who sends.
PROGRAMS: Final = (
    Program("jaeger", "jaeger", _jaeger, lambda stack: f"{stack.url('jaeger_health')}/status"),
    Program("victoria-logs", "victorialogs", _victorialogs, lambda stack: f"{stack.url('victorialogs')}/health"),
    Program("prometheus", "prometheus", _prometheus, lambda stack: f"{stack.url('prometheus')}/-/ready"),
    Program("otelcol", "otelcol", _collector, lambda stack: stack.url("collector_health")),
)
