"""Values that processes share through files, while there is room for them and while there is not."""

from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from app.metrics.files import FIRST_BYTES, SharedValues, allocate


def shared(path: Path) -> dict[str, float]:
    """What another process reads."""
    return {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(path)}


def test_values_are_shared_however_many_there_are(tmp_path: Path) -> None:
    path = tmp_path / "counter_1.db"
    values = SharedValues(str(path))
    assert not path.exists()
    expected = {f"a metric with a long name and number {number}": float(number) for number in range(3000)}
    for key, value in expected.items():
        assert values.read_value(key) == (0.0, 0.0)
        values.write_value(key, value, 0.0)
    assert shared(path) == expected
    size = path.stat().st_size
    assert size > 2 * FIRST_BYTES
    assert path.stat().st_blocks * 512 >= size  # the disk has room for all of it
    values.close()


def test_what_there_is_no_room_for_is_kept_and_shared_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "missing" / "counter_1.db"
    values = SharedValues(str(path))
    for key in ("one", "two"):
        assert values.read_value(key) == (0.0, 0.0)
        values.write_value(key, 1.0, 0.0)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "metrics of this process are missing" in caplog.text
    path.parent.mkdir()
    values.write_value("one", 2.0, 0.0)
    assert shared(path) == {"one": 2.0}
    values.close()


def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken.db").mkdir()
    with pytest.raises(OSError, match="directory"):
        allocate(tmp_path / "taken.db", 8)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.db"]
