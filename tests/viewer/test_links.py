"""Single-use links: made by one process, taken once by any, too old after ten minutes."""

from __future__ import annotations

import stat
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from streamlit_extension.viewer.links import ADDRESS_FILE, FOLDER, LIFETIME_S, LinkBox


@pytest.mark.parametrize("kept", [True, False])
def test_a_code_opens_once(tmp_path: Path, kept: bool) -> None:
    """In the data folder or in memory; a second use, another code and nonsense open nothing."""
    box = LinkBox(tmp_path if kept else None)
    code = box.make()
    assert not box.take(code + "x")
    assert box.take(code)
    for wrong in (code, "", "../token", "x" * 10_000, "ü", "*", code.swapcase()):
        assert not box.take(wrong)


@pytest.mark.parametrize("kept", [True, False])
def test_a_code_is_good_for_ten_minutes(tmp_path: Path, kept: bool) -> None:
    """And not a second longer."""
    now = [1_000_000.0]
    box = LinkBox(tmp_path if kept else None, wall=lambda: now[0])
    first, second = box.make(), box.make()
    now[0] += LIFETIME_S - 2
    assert box.take(first)
    now[0] += 3
    assert not box.take(second)


def test_another_process_takes_it_and_the_folder_holds_no_code(tmp_path: Path) -> None:
    """Only hashes are kept, in files that nobody else may read."""
    code = LinkBox(tmp_path).make()
    (file,) = (tmp_path / FOLDER).iterdir()
    assert code not in file.name
    assert file.read_bytes() == b""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    assert LinkBox(tmp_path).take(code)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_of_many_at_the_same_moment_one_wins(tmp_path: Path) -> None:
    """Two browsers with one link: a single session."""
    code = LinkBox(tmp_path).make()
    boxes = [LinkBox(tmp_path) for _ in range(8)]
    won: list[bool] = []
    start = threading.Barrier(8)

    def take(box: LinkBox) -> None:
        start.wait(10)
        won.append(box.take(code))

    threads = [threading.Thread(target=take, args=(box,)) for box in boxes]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(won) == [False] * 7 + [True]


def test_codes_do_not_pile_up(tmp_path: Path) -> None:
    """A loop of `link` keeps a bounded number; a far future written by hand opens nothing."""
    box = LinkBox(tmp_path)
    for _ in range(100):
        code = box.make()
    assert len(list((tmp_path / FOLDER).iterdir())) <= 64
    assert box.take(code)
    code = box.make()
    (file,) = [
        each for each in (tmp_path / FOLDER).iterdir() if each.name.startswith(sha256(code.encode()).hexdigest())
    ]
    file.rename(file.with_name(file.name.split(".")[0] + ".99999999999"))
    assert not box.take(code)


def test_where_the_page_is(tmp_path: Path) -> None:
    """What a process published another reads; damage and a scheme that runs scripts count as nothing."""
    box = LinkBox(tmp_path)
    assert box.address() is None
    box.publish("http://127.0.0.1:8501/telemetry/")
    assert LinkBox(tmp_path).address() == "http://127.0.0.1:8501/telemetry/"
    for damage in ("{", "[]", '{"url": 3}', '{"url": "javascript:alert(1)"}'):
        (tmp_path / FOLDER / ADDRESS_FILE).write_text(damage)
        assert box.address() is None
