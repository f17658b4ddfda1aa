"""Arrays as rows of numbers."""

import numpy as np

from app.maths.arrays import flat


def test_flat_rows_are_in_row_major_order() -> None:
    maps = np.arange(48).reshape(2, 4, 2, 3)
    assert flat(maps).tolist() == [list(range(24)), list(range(24, 48))]
    assert np.array_equal(flat(maps).reshape(-1, *maps.shape[1:]), maps)
    for array in (np.arange(3), maps[:, :, 0, 0]):
        assert flat(array) is array
