"""The manager and its loop: thresholds, state over restarts, actions, and their threads' end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streamlit_extension.alerts.delivery import Delivery, Retry
from streamlit_extension.alerts.manager import AlertLoop, Identity
from streamlit_extension.alerts.model import AlertRule, Cause, NoticeKind, Reading, Silence, Snapshot
from streamlit_extension.alerts.rules import rules_from
from streamlit_extension.alerts.state import AlertFile, SilenceFile
from streamlit_extension.settings import Settings
from streamlit_extension.utils.monitoring import THRESHOLDS, AlertManager, SystemMonitor
from tests.alerts.support import HangingSink, ListSink, eventually, threads

START = 1_700_000_000.0
CPU = {"cpu_usage": Reading(97.0, trace_id="ab" * 16)}
CALM = {"cpu_usage": Reading(12.0)}
SERIES: list[Snapshot | Exception] = [RuntimeError(), CPU, CPU, CALM]


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def kinds(manager: AlertManager, snapshot: Snapshot, now: float) -> list[tuple[NoticeKind, list[str]]]:
    told = manager.check_alerts(snapshot, now=now)
    manager.send_notifications(told)
    return [(notice.kind, [alert.rule.name for alert in notice.alerts]) for notice in told]


def test_thresholds_are_those_of_the_specification() -> None:
    """The constant has the six critical thresholds, and they are the rules when nothing else is said."""
    assert dict(THRESHOLDS) == {
        "cpu_usage": 85,
        "memory_usage": 90,
        "disk_usage": 85,
        "error_rate": 5,
        "response_time": 5000,
        "database_connections": 18,
    }
    rules = AlertManager().define_thresholds()
    assert {rule.name: rule.threshold for rule in rules} == {name: float(value) for name, value in THRESHOLDS.items()}
    assert {str(rule.severity) for rule in rules} == {"critical"}
    with pytest.raises(TypeError):
        THRESHOLDS["cpu_usage"] = 1  # type: ignore[index]


def test_define_thresholds_replaces_what_it_names() -> None:
    """One threshold is changed, the others keep their default, and the next check goes by it."""
    manager = AlertManager(clock=Clock())
    rules = manager.define_thresholds({"cpu_usage": 50}, for_s=0)
    assert {rule.name: rule.threshold for rule in rules} | {"cpu_usage": 85.0} == dict(THRESHOLDS)
    assert kinds(manager, {"cpu_usage": Reading(50.0)}, START) == [(NoticeKind.FIRED, ["cpu_usage"])]


def test_a_number_of_connections_wins_over_the_pools_share() -> None:
    """Ten connections are ten, whatever the pool's own maximum is; without a number its share counts."""
    manager = AlertManager(clock=Clock())
    busy = {"database_connections": Reading(10.0, limit=100)}
    manager.define_thresholds(for_s=0)
    assert kinds(manager, busy, START) == []
    manager.define_thresholds({"database_connections": 10}, for_s=0)
    assert kinds(manager, busy, START) == [(NoticeKind.FIRED, ["database_connections"])]


@pytest.mark.parametrize("wrong", ["high", None, [1]])
def test_a_threshold_that_is_no_number_is_named(wrong: Any) -> None:
    """One line says which; the rules stay as they were."""
    manager = AlertManager()
    with pytest.raises(ValueError, match="cpu_usage: the threshold is no number"):
        manager.define_thresholds({"cpu_usage": wrong})
    assert manager.rules == AlertManager().rules


def test_plain_numbers_are_readings() -> None:
    """Whoever has numbers gives numbers; none, and what is not finite, is no data; a text is refused by name."""
    manager = AlertManager(clock=Clock())
    manager.define_thresholds({"queue_length": 100}, for_s=0)
    given = {"cpu_usage": 99, "memory_usage": None, "disk_usage": float("nan"), "queue_length": 100}
    (notice,) = manager.check_alerts(given, now=START)
    assert [alert.rule.name for alert in notice.alerts] == ["cpu_usage", "queue_length"]
    with pytest.raises(TypeError, match="cpu_usage is no number and no Reading but str"):
        manager.check_alerts({"cpu_usage": "99"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not list"):
        manager.check_alerts([99])  # type: ignore[arg-type]


def test_a_snapshot_is_evaluated_as_it_is() -> None:
    """What `collect_metrics` returned and what is read now lead to the same alerts."""
    monitor = SystemMonitor()
    manager = AlertManager(clock=Clock())
    manager.define_thresholds({"memory_usage": 0.001, "disk_usage": 0.001, "cpu_usage": 100.1}, for_s=0)
    (notice,) = manager.check_alerts(monitor.collect_metrics(), now=START)
    assert {alert.rule.name for alert in notice.alerts} == {"memory_usage", "disk_usage"}
    assert manager.check_alerts(now=START + 1) == ()  # both are still there, and told


def test_a_manager_alone_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Without sinks a notice is a line of the log once `send_notifications` returns, and no thread is left."""
    before = threads("stx-alerts")
    manager = AlertManager(clock=Clock())
    manager.define_thresholds(for_s=0)
    with caplog.at_level(logging.INFO, "streamlit_extension.alerts"):
        manager.send_notifications(manager.check_alerts({"cpu_usage": 99.0}, now=START))
    assert [record.getMessage() for record in caplog.records] == ["CPU usage is 99% (threshold 85%)"]
    assert threads("stx-alerts") == before


def test_settings_become_rules() -> None:
    """`[alerts]` gives thresholds and `for`; a number of connections wins over the pool's share."""
    loaded = Settings.load({"STX_ALERTS__THRESHOLDS__CPU_USAGE": "70", "STX_ALERTS__FOR_S": "0"}, Path("/"))
    rules = {rule.name: rule for rule in rules_from(loaded.alerts)}
    assert (rules["cpu_usage"].threshold, rules["cpu_usage"].for_s) == (70.0, 0.0)
    assert (rules["database_connections"].threshold, rules["database_connections"].share_of_limit) == (18.0, 0.9)
    assert rules["error_rate"].min_samples == rules["response_time"].min_samples == 20
    number = Settings.load({"STX_ALERTS__THRESHOLDS__DATABASE_CONNECTIONS": "12"}, Path("/"))
    chosen = next(rule for rule in rules_from(number.alerts) if rule.name == "database_connections")
    assert (chosen.threshold, chosen.share_of_limit) == (12.0, None)


def test_an_alert_survives_a_restart(tmp_path: Path) -> None:
    """What fired before a restart is not told again after it, and its end is, under the same key."""
    identity = Identity("shop", "pod-1")

    def start() -> tuple[AlertManager, ListSink]:
        sink = ListSink()
        manager = AlertManager(delivery=Delivery([sink]), file=AlertFile(tmp_path), identity=identity, clock=Clock())
        return manager, sink

    first, sink = start()
    assert kinds(first, CPU, START) == []
    assert first.stop()
    second, _ = start()
    assert kinds(second, CPU, START + 30) == [(NoticeKind.FIRED, ["cpu_usage"])]
    assert second.stop()
    third, sink = start()
    assert kinds(third, CPU, START + 60) == [] and third.firing() == ("cpu_usage",)
    assert kinds(third, CALM, START + 75) == [(NoticeKind.RESOLVED, ["cpu_usage"])]
    assert third.stop()
    assert [notice.alerts[0].key for notice in sink.taken] == ["shop/pod-1/cpu_usage"]


def test_a_pod_that_takes_over_a_volume_resolves_under_the_key_of_the_one_before(tmp_path: Path) -> None:
    """An incident that another instance opened is closed, not a second one that nobody opened."""
    before = AlertManager(file=AlertFile(tmp_path), identity=Identity("shop", "pod-1"), clock=Clock())
    before.define_thresholds(for_s=0)
    assert kinds(before, CPU, START) == [(NoticeKind.FIRED, ["cpu_usage"])]
    assert before.stop()
    after = AlertManager(file=AlertFile(tmp_path), identity=Identity("shop", "pod-2"), clock=Clock())
    (notice,) = after.check_alerts(CALM, now=START + 15)
    assert notice.alerts[0].key == "shop/pod-1/cpu_usage"
    assert after.stop()


def test_nothing_is_written_while_all_is_well(tmp_path: Path) -> None:
    """Evaluations without an alert leave the file as it is."""
    manager = AlertManager(file=AlertFile(tmp_path), clock=Clock())
    kinds(manager, CALM, START)
    before = (tmp_path / "alerts.json").stat().st_ino
    for turn in range(20):
        kinds(manager, CALM, START + turn)
    assert (tmp_path / "alerts.json").stat().st_ino == before
    kinds(manager, CPU, START + 60)
    assert (tmp_path / "alerts.json").stat().st_ino != before
    assert manager.stop()


def test_what_was_not_delivered_is_delivered_after_a_restart(tmp_path: Path) -> None:
    """A notice that a hanging sink never took is kept, and the next process sends it."""
    hanging = HangingSink("list")
    first = AlertManager(delivery=Delivery([hanging]), file=AlertFile(tmp_path), clock=Clock())
    first.define_thresholds(for_s=0)
    assert kinds(first, CPU, START) == [(NoticeKind.FIRED, ["cpu_usage"])]
    assert hanging.entered.wait(20)
    assert first.stop(0.1) is False
    hanging.go_on.set()
    sink = ListSink("list")
    second = AlertManager(delivery=Delivery([sink]), file=AlertFile(tmp_path), clock=Clock())
    eventually(lambda: [notice.kind for notice in sink.taken] == [NoticeKind.FIRED])
    assert second.stop()


def test_a_rule_that_is_taken_out_resolves_its_alert(tmp_path: Path) -> None:
    """Nobody is left with an alert that can't end: its resolve says that the rule is gone."""
    rule = AlertRule(name="cpu_usage", metric="cpu_usage", threshold=85, for_s=0)
    before = AlertManager(clock=Clock(), rules=[rule], file=AlertFile(tmp_path))
    assert kinds(before, CPU, START) == [(NoticeKind.FIRED, ["cpu_usage"])]
    assert before.stop()
    manager = AlertManager(clock=Clock(), rules=[], file=AlertFile(tmp_path))
    (notice,) = manager.check_alerts({}, now=START + 15)
    assert (notice.kind, notice.alerts[0].cause) == (NoticeKind.RESOLVED, Cause.RULE_REMOVED)
    assert manager.check_alerts({}, now=START + 30) == ()
    assert manager.stop()


def test_silences_of_operators_and_of_the_process(tmp_path: Path) -> None:
    """Both the file's silences and the process's own (maintenance) hold back what fires, until they end."""
    manager = AlertManager(silences=SilenceFile(tmp_path), clock=Clock())
    manager.define_thresholds(for_s=0)
    SilenceFile(tmp_path).write([Silence("cpu_usage", START + 60, "deploying")])
    assert kinds(manager, {**CPU, "disk_usage": Reading(99.0)}, START) == [(NoticeKind.FIRED, ["disk_usage"])]
    manager.silence(until=START + 90, reason="maintenance")
    assert kinds(manager, CPU, START + 60) == [(NoticeKind.ACKNOWLEDGED, ["disk_usage"])]
    manager.silence(until=0, reason="")
    assert (NoticeKind.FIRED, ["cpu_usage"]) in kinds(manager, CPU, START + 61)


def test_actions_see_what_fires_and_what_fired_just_now() -> None:
    """An action is told at every check; one that fails disturbs neither the others nor the alert; silenced is left out."""
    seen: list[tuple[list[str], list[str]]] = []

    class Failing:
        def consider(self, firing: Sequence[AlertRule], fired: Sequence[AlertRule], /) -> None:
            raise RuntimeError

    class Seeing:
        def consider(self, firing: Sequence[AlertRule], fired: Sequence[AlertRule], /) -> None:
            seen.append(([rule.name for rule in firing], [rule.name for rule in fired]))

    manager = AlertManager(actions=[Failing(), Seeing()], clock=Clock())
    manager.define_thresholds(for_s=0)
    assert kinds(manager, CPU, START) == [(NoticeKind.FIRED, ["cpu_usage"])]
    kinds(manager, CPU, START + 15)
    manager.silence(until=START + 90, reason="mine")
    kinds(manager, CPU, START + 30)
    assert seen == [(["cpu_usage"], ["cpu_usage"]), (["cpu_usage"], []), ([], [])]


def test_loop_evaluates_tells_and_ends() -> None:
    """Its thread evaluates at once and at each interval, goes on after a failed reading, and is gone after the stop."""
    sink, failed, values = ListSink(), threading.Event(), iter(SERIES)

    def read() -> Snapshot:
        value = next(values, CALM)
        if isinstance(value, Exception):
            failed.set()
            raise value
        return value

    manager = AlertManager(delivery=Delivery([sink], retry=Retry()))
    manager.define_thresholds(for_s=0)
    loop = AlertLoop(manager, read, interval_s=0.01)
    loop.start()
    loop.start()
    eventually(lambda: [notice.kind for notice in sink.taken] == [NoticeKind.FIRED, NoticeKind.RESOLVED])
    assert failed.is_set() and threads("stx-alerts") != []
    assert loop.stop(20)
    assert threads("stx-alerts") == []


def test_a_hanging_sink_never_delays_the_evaluation() -> None:
    """While a sink hangs, checks go on and another sink hears of the end."""
    hanging, well = HangingSink(), ListSink("well")
    manager = AlertManager(delivery=Delivery([hanging, well]), clock=Clock())
    manager.define_thresholds(for_s=0)
    for turn in range(200):
        kinds(manager, CPU if turn % 2 == 0 else CALM, START + turn)
    eventually(lambda: len(well.taken) >= 100)
    hanging.go_on.set()
    assert manager.stop(20)
