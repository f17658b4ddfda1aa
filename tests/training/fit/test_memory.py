"""Freed memory is kept."""

import ctypes
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from training.fit.memory import keep_freed_memory

PROGRAM = """
import sys, torch
from pathlib import Path
from training.fit.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(77)
before = resident()
tensor = torch.ones(50_000_000)
del tensor
print(resident() - before)
"""


def kept(how: str) -> int:
    """Bytes that stay with a process that made a tensor of 200 MB and gave it back."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_freed_stays() -> None:
    assert kept("leave") < 50e6
    assert kept("keep") > 150e6


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
