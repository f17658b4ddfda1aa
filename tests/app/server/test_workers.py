"""A supervisor whose check fails on SIGHUP changes nothing and goes on."""

import signal
from collections.abc import Iterator

import pytest
import uvicorn
from uvicorn.supervisors.multiprocess import SIGNALS

from app.errors import BundleError
from app.server.workers import Supervisor


@pytest.fixture
def _signals() -> Iterator[None]:
    """Restores the signal handlers that a new supervisor replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("error", [BundleError("mnist/2 is damaged"), ValueError("nobody has thought of it")])
def test_a_hangup_that_fails_leaves_the_workers_as_they_are(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def check() -> None:
        raise error

    supervisor = Supervisor(uvicorn.Config("nowhere:app", workers=2), [], check)
    supervisor.handle_hup()
    assert supervisor.processes == []
    assert not supervisor.should_exit.is_set()
    assert "SIGHUP: the workers stay as they are" in caplog.text
    assert str(error) in caplog.text
