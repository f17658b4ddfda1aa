"""Runs one batch of pieces, and returns the outputs to their jobs."""

import time
from typing import NamedTuple

import numpy as np

from app.inference.latency import RunRows
from app.inference.queue import Job, Piece
from app.maths.arrays import Arrays


class Ran(NamedTuple):
    """Pieces that ran together."""

    pieces: list[Piece]
    outcome: Arrays | Exception
    """Outputs of all rows, or the exception that was raised."""
    rows: int
    seconds: float


def run_batch(run: RunRows, pieces: list[Piece]) -> tuple[bool, list[Ran]]:
    """Run pieces as one batch; if that fails, once more one by one, so that an error reaches only its own request.

    Returns whether the batch failed, and the outcome of all pieces.
    """
    together = _run(run, pieces)
    if isinstance(together.outcome, Exception):
        return True, [_run(run, [piece]) for piece in pieces]
    return False, [together]


def deliver(ran: Ran) -> None:
    """Give the outputs, or the error, to the jobs, and resolve the futures of complete jobs. Event loop only."""
    first, batch_rows = 0, ran.rows
    for piece in ran.pieces:
        job, count = piece.job, piece.stop - piece.start
        if isinstance(ran.outcome, Exception):
            if not job.future.done():
                job.future.set_exception(ran.outcome)
            continue
        outputs = ran.outcome
        if count < batch_rows:
            outputs = {name: output[first : first + count] for name, output in outputs.items()}
        first += count
        job.done += count
        job.max_batch_rows = max(job.max_batch_rows, batch_rows)
        if not job.future.done():
            _put(job, piece.start, outputs)


def _run(run: RunRows, pieces: list[Piece]) -> Ran:
    began, count = time.monotonic(), 0
    for _, start, stop in pieces:
        count += stop - start
    outcome: Arrays | Exception
    try:
        outcome = run(pieces[0].rows if len(pieces) == 1 else np.concatenate([piece.rows for piece in pieces]))
        for output in outcome.values():
            if len(output) != count:
                raise RuntimeError("a graph returned a different number of rows than it was given")
    except StopIteration as error:  # a future does not accept it
        outcome = RuntimeError(repr(error))
    except Exception as error:
        outcome = error
    except BaseException as error:  # it would end the slot's thread, or the event loop
        outcome = RuntimeError(repr(error))
    return Ran(pieces, outcome, count, time.monotonic() - began)


def _put(job: Job, start: int, outputs: Arrays) -> None:
    """Store the outputs of a job's rows from `start` on; resolve its future when all its rows have run."""
    count = len(job.rows)
    try:
        if not job.outputs and job.done == count:  # all rows ran together
            job.future.set_result(outputs)
            return
        if not job.outputs:
            job.outputs = {name: np.empty((count, *part.shape[1:]), part.dtype) for name, part in outputs.items()}
        for name, part in outputs.items():
            if part.shape[1:] != job.outputs[name].shape[1:]:
                raise RuntimeError("a graph returned rows of different shapes")
            job.outputs[name][start : start + len(part)] = part
        if job.done == count:
            job.future.set_result(job.outputs)
    except Exception as error:  # or no memory
        job.future.set_exception(error)
