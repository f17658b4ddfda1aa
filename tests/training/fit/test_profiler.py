"""The profiler that is off."""

from training.fit.profiler import NoProfiler


def test_it_lets_everything_pass_and_has_nothing_to_tell() -> None:
    profiler, seen = NoProfiler(), []
    with profiler.profile("one"), profiler.profile("another"):
        seen.append("a step")
    assert seen == ["a step"]
    assert profiler.summary() == ""
