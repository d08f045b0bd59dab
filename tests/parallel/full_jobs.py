"""Jobs of four processes: collectives, optimizer states, and gradients over shared frames."""

from pathlib import Path

from tests.parallel import launch


def test_four_processes(tmp_path: Path) -> None:
    for function, cases in (("groups", ()), ("gradients", ("5+0", "17+2"))):
        job = launch.run(4, ["-m", "tests.parallel.jobs", function, 4, *cases], tmp_path / function)
        assert job.code == 0, job
        print(job.terminal)


def test_more_counts_of_frames_of_two(tmp_path: Path) -> None:
    job = launch.run(2, ["-m", "tests.parallel.jobs", "gradients", 2, "5+0", "7+2", "17+0"], tmp_path)
    assert job.code == 0, job
    print(job.terminal)
