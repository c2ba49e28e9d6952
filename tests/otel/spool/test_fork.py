"""A fork: the child begins with nothing, the parent loses nothing, and neither waits for the other."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from otel.export.outcome import Outcome
from otel.ledger import Ledger
from otel.records import Signal
from otel.spool import Spool
from tests.support.spooling import TAKEN, Steered, batch, commit, senders

PROGRAM = textwrap.dedent(
    """
    import json, os, sys, threading
    from pathlib import Path
    from otel.ledger import Ledger
    from otel.records import Signal
    from otel.spool import Spool
    from tests.support.spooling import batch, commit

    folder, forks = Path(sys.argv[1]), int(sys.argv[2])
    ledger = Ledger()
    # The pipeline's part: a child's accounts begin at nothing.
    os.register_at_fork(after_in_child=ledger.reset)
    spool = Spool(folder, ledger, {}, period_s=0.05)
    spool.start()
    stop, counts = threading.Event(), [0] * 8

    def append(number):
        while not stop.wait(0.005):
            identity = 1_000_000 + number * 100_000 + counts[number]
            commit(spool, ledger, batch(Signal.LOGS, [identity], padding=300))
            counts[number] += 1

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    codes = []
    for child in range(forks):
        pid = os.fork()
        if pid == 0:
            try:
                before = ledger.snapshot()[Signal.LOGS].emitted
                commit(spool, ledger, batch(Signal.LOGS, [child * 2]), batch(Signal.LOGS, [child * 2 + 1]))
                spool.close(0)
                account = ledger.snapshot()[Signal.LOGS]
                # It may have taken over what an earlier child left.
                os._exit(0 if before == 0 and account.emitted == account.spooled >= 2 else 3)
            except BaseException:
                os._exit(4)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    spool.close(0)
    account = ledger.snapshot()[Signal.LOGS]
    print(json.dumps({"codes": codes, "counts": counts, "spooled": account.spooled, "balance": account.balance}))
    """
)


@pytest.mark.timeout(170)
def test_a_hundred_forks_while_eight_threads_append(tmp_path: Path) -> None:
    """No deadlock; each child's records and all of the parent's are there, once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(tmp_path), "100"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["codes"] == [0] * 100
    assert told["balance"] == 0
    # A child's orphan may have been taken over by the parent while it ran.
    assert told["spooled"] >= sum(told["counts"])
    receiver = Steered(Signal.LOGS)
    spool = Spool(tmp_path, Ledger(), senders(receiver))
    spool.start()
    spool.look_after()
    assert spool.flush(60)
    spool.close(5)
    wanted = list(range(200))
    for number, count in enumerate(told["counts"]):
        wanted += range(1_000_000 + number * 100_000, 1_000_000 + number * 100_000 + count)
    assert sorted(receiver.taken) == wanted


def test_a_child_that_says_nothing_leaves_no_trace_and_the_parent_goes_on(tmp_path: Path) -> None:
    """A child that only ends takes no file and no record along, and keeps nobody from taking the parent's file over."""
    import os

    ledger, receiver = Ledger(), Steered(Signal.LOGS)
    held: list[int] = []

    def answer(ids: list[int]) -> Outcome:
        held.extend(ids)
        return TAKEN

    receiver.answer = answer
    spool = Spool(tmp_path, ledger, senders(receiver))
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    before = sorted(each.suffix for each in tmp_path.iterdir())
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sorted(each.suffix for each in tmp_path.iterdir()) == before
    commit(spool, ledger, batch(Signal.LOGS, [2]))
    assert spool.flush(20)
    spool.close(5)
    assert held == [1, 2]


LONG_CHILD = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from otel.ledger import Ledger
    from otel.records import Signal
    from otel.spool import Spool
    from tests.support.spooling import batch, commit

    ledger = Ledger()
    spool = Spool(Path(sys.argv[1]), ledger, {})
    spool.start()
    commit(spool, ledger, batch(Signal.LOGS, [1]))
    if os.fork() == 0:
        print("child", flush=True)
        sys.stdin.read()
        sys.exit()  # the interpreter's own end, with everything it closes
    os.kill(os.getpid(), 9)
    """
)


def test_a_child_that_outlives_its_parent_does_not_hold_the_parents_file(tmp_path: Path) -> None:
    """The parent's file is free when the parent has died, and its child's end does nothing to it."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LONG_CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"child\n"
        process.wait(20)
        receiver, ledger = Steered(Signal.LOGS), Ledger()
        spool = Spool(tmp_path, ledger, senders(receiver))
        spool.start()
        assert receiver.wait_for(lambda: receiver.taken == [1])
        process.stdin.close()
        process.stdout.read()  # ends when the child has
        assert spool.flush(20)
        spool.close(5)
    assert list(tmp_path.iterdir()) == []
