"""The five steps twice with one seed: the same files, byte for byte, in another process, place and time."""

from tests import street
from tests.street import BACKBONE, contents, differences, walk

one_thread = street.one_thread


def steps(workers: int) -> list[tuple]:
    """The commands, with this number of workers."""
    data = ("--data", "shapes", "--run", "run", "--workers", workers)
    return [
        ("sample_features.py", *data, *BACKBONE, "--seed", 7, "--batch-size", 4),
        ("train_cls.py", "--run", "run", "--seed", 7, "--epochs", 3, "--hidden", 16, "--class-weights", "inverse"),
        ("train_seg.py", *data, "--seed", 7, "--epochs", 1, "--batch-size", 4, "--class-weights", "batch"),
        ("evaluate.py", *data, "--save-predictions"),
        ("visualize.py", *data, "--limit", 2),
    ]


def test_the_same_seed_gives_the_same_files_whatever_the_process_the_place_and_the_number_of_workers(
    drawn, in_process, one_thread, tmp_path, monkeypatch
):
    here, there = tmp_path / "here", tmp_path / "there"
    for place in (here, there):
        place.mkdir()
        (place / "shapes").symlink_to(drawn)
    monkeypatch.chdir(here)
    for step in steps(workers=0):
        done = in_process(*step)
        assert done.returncode == 0, done.stderr
    for step in steps(workers=2):
        done = walk(*step, cwd=there)
        assert done.returncode == 0, done.stderr
    first, second = contents(here / "run"), contents(there / "run")
    assert {name.split("/")[0] for name in first} == {"1_features", "2_cls", "3_seg", "4_eval", "5_overlays"}
    assert differences(first, second) == []
