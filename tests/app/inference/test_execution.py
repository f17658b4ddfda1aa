"""One batch: run, run again piece by piece if it fails, and delivered."""

import asyncio
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.inference.execution import deliver, run_batch
from app.inference.queue import Job, Piece
from app.maths.arrays import Arrays


def double(rows: NDArray[Any]) -> Arrays:
    if (rows < 0).any():
        raise ValueError("negative")
    return {"double": 2 * rows}


def test_pieces_run_together_and_their_outputs_are_joined_in_order() -> None:
    async def main() -> None:
        future: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()
        job = Job(np.arange(5.0), future, None, 0.0)
        for start, stop in ((3, 5), (0, 3)):
            failed, [ran] = run_batch(double, [Piece(job, start, stop)])
            assert (failed, ran.rows, future.done()) == (False, stop - start, False)
            deliver(ran)
        assert (await future)["double"].tolist() == [0, 2, 4, 6, 8]
        assert (job.done, job.max_batch_rows) == (5, 3)

    asyncio.run(main())


def test_an_error_reaches_only_the_job_that_it_belongs_to() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        good, bad = (Job(np.full(1, value), loop.create_future(), None, 0.0) for value in (1.0, -1.0))
        failed, parts = run_batch(double, [Piece(good, 0, 1), Piece(bad, 0, 1)])
        assert (failed, len(parts)) == (True, 2)
        for ran in parts:
            deliver(ran)
        assert (await good.future)["double"].tolist() == [2]
        with pytest.raises(ValueError, match="negative"):
            await bad.future

    asyncio.run(main())


def test_outputs_for_a_cancelled_job_are_thrown_away() -> None:
    async def main() -> None:
        gone = Job(np.zeros(1), asyncio.get_running_loop().create_future(), None, 0.0)
        gone.future.cancel()
        for run in (double, lambda _: {"double": np.zeros(7)}):
            for ran in run_batch(run, [Piece(gone, 0, 1)])[1]:
                deliver(ran)
        assert gone.future.cancelled()

    asyncio.run(main())
