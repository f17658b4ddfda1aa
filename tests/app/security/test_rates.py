"""Rate limits: counted for each caller, shared between processes, reported in headers."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from app.security import rates
from app.security.rates import Rates, read_rate


def left(allowance: rates.Allowance | None) -> list[int]:
    assert allowance is not None
    return [remaining for _, remaining, _ in allowance.windows]


def test_a_request_over_the_limit_gets_a_time_to_wait() -> None:
    counted = Rates(read_rate("3/minute"))
    assert [left(counted.take("a")) for _ in range(3)] == [[2], [1], [0]]
    refused = counted.take("a")
    assert refused is not None
    assert 58 <= (refused.retry_after or 0) <= 60
    assert left(counted.take("b")) == [2]


def test_a_window_begins_anew_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, now = Rates(read_rate("2/minute")), 1000.0
    monkeypatch.setattr(rates.time, "monotonic", lambda: now)
    assert [allowance and allowance.retry_after for allowance in (counted.take("a") for _ in range(3))] == [
        None,
        None,
        60,
    ]
    now += 59.5
    again = counted.take("a")
    assert again is not None
    assert again.retry_after == 1  # a caller that waits that long is allowed
    now += 1
    assert left(counted.take("a")) == [1]


def test_several_limits_hold_together() -> None:
    counted = Rates(read_rate("2/second;100/hour"))
    assert left(counted.take("a")) == [1, 99]
    counted.take("a")
    refused = counted.take("a")
    assert refused is not None
    assert refused.retry_after == 1


def test_refused_requests_count_in_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, now = Rates(read_rate("2/second;5/minute")), 1000.0
    monkeypatch.setattr(rates.time, "monotonic", lambda: now)

    def waits(times: int) -> list[int | None]:
        allowances = [counted.take("a") for _ in range(times)]
        return [allowance and allowance.retry_after for allowance in allowances]

    assert waits(5) == [None, None, 1, 1, 1]
    now += 1  # whoever waits as long as is said gets through
    assert waits(3) == [None, None, 1]
    now += 1
    assert waits(2) == [None, 58]
    now += 58
    assert waits(1) == [None]


def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Rates(read_rate("1/hour"))
    counted.take("a")
    monkeypatch.setattr(rates.time, "time", lambda: 0.0)
    refused = counted.take("a")
    assert refused is not None
    assert 3598 <= (refused.retry_after or 0) <= 3600


def test_a_callers_own_rate_goes_before_the_servers() -> None:
    own = read_rate("1/hour")
    for counted in (Rates(read_rate("100/minute")), Rates(None)):
        assert left(counted.take("a", own)) == [0]
        assert counted.take("a", own) is not None
    assert Rates(None).take("a") is None


def test_the_headers_are_those_of_the_drafts() -> None:
    counted = Rates(read_rate("20/second;600/minute"))
    counted.take("a")
    allowance = counted.take("a")
    assert allowance is not None
    headers = {name.decode(): value.decode() for name, value in allowance.headers()}
    assert headers == {
        "ratelimit-policy": '"20/1s";q=20;w=1, "600/60s";q=600;w=60',
        "ratelimit": '"20/1s";r=18;t=1, "600/60s";r=598;t=60',
        "ratelimit-limit": "20",
        "ratelimit-remaining": "18",
        "ratelimit-reset": "1",
    }


@pytest.mark.parametrize("text", ["", "fast", "10", "10/eon", "0/minute", "-1/minute", "10/minute;", "1/second;x"])
def test_malformed_rates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a rate looks like 600/minute"):
        read_rate(text)


def _take(folder: Path, times: int) -> int:
    """How many of these requests are allowed."""
    counted = Rates(read_rate("100/hour"), folder)
    allowances = [counted.take("a") for _ in range(times)]
    return sum(allowance is not None and allowance.retry_after is None for allowance in allowances)


def test_processes_count_together(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert sum(pool.starmap(_take, [(tmp_path, 90)] * 2)) == 100


def test_windows_that_are_over_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_SWEEP", 10)
    counted, now = Rates(read_rate("5/second"), tmp_path), 1000.0
    monkeypatch.setattr(rates.time, "monotonic", lambda: now)
    for caller in range(35):
        counted.take(f"address {caller}")
        now += 1
    with sqlite3.connect(tmp_path / rates.FILE) as database:
        assert database.execute("SELECT count(*) FROM windows").fetchone()[0] <= 15
    database.close()


def test_a_request_that_cannot_be_counted_is_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counted = Rates(read_rate("1/hour"), tmp_path)
    counted.take("b")
    with sqlite3.connect(tmp_path / rates.FILE) as database:
        database.execute("DROP TABLE windows")
    database.close()
    assert counted.take("a") is None
    assert "a request is not counted" in caplog.text


def test_a_lock_that_another_process_holds_is_no_end_of_counting(tmp_path: Path) -> None:
    counted, other = Rates(read_rate("3/hour"), tmp_path), Rates(read_rate("3/hour"), tmp_path)
    assert left(counted.take("a")) == [2]
    with sqlite3.connect(tmp_path / rates.FILE) as reader:
        rows = reader.execute("SELECT * FROM windows")
        rows.fetchone()
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM windows").fetchone()  # its lock is shared: the writer cannot commit
        assert counted.take("a") is None
    reader.close()
    assert left(counted.take("a")) == [1]
    assert left(other.take("a")) == [0]


def test_a_full_disk_is_no_end_of_counting(tmp_path: Path) -> None:
    counted = Rates(read_rate("1/second;3/hour"), tmp_path)
    counted.take("a")
    pages = counted._database.execute("PRAGMA page_count").fetchone()[0]
    counted._database.execute(f"PRAGMA max_page_count = {pages}")
    assert None in [counted.take("x" * 4000 + str(caller)) for caller in range(10)]
    counted._database.execute("PRAGMA max_page_count = 100000")
    assert left(counted.take("c")) == [0, 2]
    assert counted._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_requests_are_allowed_if_the_counts_cannot_be_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counted = Rates(read_rate("1/hour"), tmp_path / "none")
    assert [counted.take("a") for _ in range(3)] == [None] * 3
    assert "a request is not counted" in caplog.text
