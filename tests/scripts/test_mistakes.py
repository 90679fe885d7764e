"""Mistakes that users make: each ends with exit code 2 and one line that says what, where and what to do."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
BACKBONE = ("--backbone", "squeezenet1_1", "--weights", "random", "--size", "48")


@pytest.fixture
def fails(in_process):
    """Runs a script and returns the one line it fails with."""

    def run(name: str, *arguments) -> str:
        done = in_process(name, *arguments)
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2, done.stderr
        assert len(lines) == 1 and lines[0].startswith(name.removesuffix(".py") + ": "), done.stderr
        return lines[0]

    return run


@pytest.fixture(scope="module")
def trained(drawn, in_turn, tmp_path_factory) -> Path:
    """A run after steps 1 to 3; not to be changed: see `run`."""
    run = tmp_path_factory.mktemp("trained") / "run"
    in_turn(
        ("sample_features.py", "--data", drawn, "--run", run, *BACKBONE),
        ("train_cls.py", "--run", run, "--epochs", "1", "--hidden", "8"),
        ("train_seg.py", "--data", drawn, "--run", run, "--epochs", "1", "--limit", "4"),
    )
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of that run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_training_names_a_damaged_image(shapes, run, fails):
    path = next((shapes / "JPEGImages").iterdir())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (shapes / "ImageSets" / "Segmentation" / "train.txt").write_text(path.stem)
    line = fails("train_seg.py", "--data", shapes, "--run", run, "--epochs", "1")
    assert f"{path}: cannot be read as an image" in line


@pytest.mark.parametrize("step", ["sample_features.py", "train_seg.py", "evaluate.py", "visualize.py"])
def test_a_folder_without_data(step, run, fails, tmp_path):
    line = fails(step, "--data", tmp_path, "--run", run, *(BACKBONE if step == "sample_features.py" else ()))
    assert f"{tmp_path}: no data set in VOC layout there" in line and "python -m data.download" in line


@pytest.mark.parametrize("step", ["sample_features.py", "train_seg.py", "evaluate.py", "visualize.py"])
def test_an_unknown_split(step, drawn, run, fails):
    line = fails(step, "--data", drawn, "--run", run, "--split", "holiday")
    assert "no such list for split 'holiday'; lists there: test, train, trainval, val" in line


@pytest.mark.parametrize(
    "step, needs",
    [("train_cls.py", 1), ("train_seg.py", 2), ("evaluate.py", 2), ("visualize.py", 2)],
)
def test_a_step_out_of_order(step, needs, drawn, fails, tmp_path):
    data = () if step == "train_cls.py" else ("--data", drawn)
    line = fails(step, "--run", tmp_path / "new", *data)
    assert f"step {needs} has not finished there; run it first: python " in line
    assert not (tmp_path / "new").exists(), "a mistyped folder is not made"


def test_a_step_whose_config_is_missing_counts_as_not_finished(run, fails):
    (run / "1_features" / "config.json").unlink()
    assert "step 1 has not finished there" in fails("train_cls.py", "--run", run)


def test_features_from_another_backbone_than_the_head(drawn, run, in_process, fails):
    flags = ("--data", drawn, "--run", run)
    done = in_process("sample_features.py", *flags, "--backbone", "vgg11", "--weights", "random", "--size", "48")
    assert done.returncode == 0, done.stderr
    for name in ("train_seg.py", "evaluate.py", "visualize.py"):
        line = fails(name, *flags)
        assert "made with squeezenet1_1" in line and "with vgg11" in line


def test_a_head_that_was_fitted_again_after_step_3(drawn, run, in_process, fails):
    assert in_process("train_cls.py", "--run", run, "--epochs", "1", "--hidden", "4").returncode == 0
    for name, *flags in (("evaluate.py",), ("visualize.py",), ("train_seg.py", "--resume")):
        line = fails(name, "--data", drawn, "--run", run, *flags)
        assert "trained from another head" in line and "run train_seg.py again" in line


def test_a_rate_that_is_far_too_high(run, fails):
    before = (run / "2_cls" / "dense.pt").read_bytes()
    assert "try a smaller --lr" in fails("train_cls.py", "--run", run, "--lr", "1000", "--epochs", "60")
    assert (run / "2_cls" / "dense.pt").read_bytes() == before


def test_an_input_that_is_too_small_for_the_backbone(drawn, fails, tmp_path):
    line = fails("sample_features.py", "--data", drawn, "--run", tmp_path / "run", *BACKBONE, "--size", "8")
    assert "--size: 8 pixels are too few for squeezenet1_1" in line


def test_data_of_other_classes_than_the_network(shapes, run, fails):
    (shapes / "classes.txt").write_text("background\n" + "\n".join(f"thing{index}" for index in range(20)))
    for name in ("train_seg.py", "evaluate.py", "visualize.py"):
        line = fails(name, "--data", shapes, "--run", run)
        assert "class 1 is 'thing0' there but 'aeroplane' in" in line


def test_taps_that_the_backbone_does_not_have(drawn, fails, tmp_path):
    line = fails("sample_features.py", "--data", drawn, "--run", tmp_path / "run", *BACKBONE, "--taps", "1,9")
    assert "squeezenet1_1 has taps 1 to 4" in line


def test_a_run_folder_that_is_a_file(drawn, fails, tmp_path):
    (tmp_path / "run").write_text("")
    assert str(tmp_path / "run") in fails("sample_features.py", "--data", drawn, "--run", tmp_path / "run", *BACKBONE)


def test_a_picture_of_ones_own_that_is_not_there(run, fails, tmp_path):
    line = fails("visualize.py", "--run", run, "--image", tmp_path / "absent.jpg")
    assert f"{tmp_path / 'absent.jpg'}: no such file" in line


def test_two_pictures_of_one_name(run, fails, tmp_path):
    places = [tmp_path / "one" / "a.png", tmp_path / "other" / "a.png"]
    for place in places:
        place.parent.mkdir()
        place.touch()
    assert "2 files are called 'a.png'" in fails("visualize.py", "--run", run, "--image", *places)


@pytest.mark.parametrize(
    "step, flag, value",
    [
        ("sample_features.py", "--size", "0"),
        ("sample_features.py", "--per-class", "three"),
        ("sample_features.py", "--backbone", "resnet50"),
        ("train_cls.py", "--lr", "-1"),
        ("train_cls.py", "--dropout", "1"),
        ("train_seg.py", "--class-weights", "much"),
        ("train_seg.py", "--pixels", "0"),
        ("train_seg.py", "--cache", "0"),
        ("train_seg.py", "--cache", "nan"),
        ("train_seg.py", "--cache", "much"),
        ("train_seg.py", "--amp", "int8"),
        ("evaluate.py", "--workers", "-2"),
    ],
)
def test_a_flag_of_a_wrong_kind(step, flag, value, in_process):
    done = in_process(step, "--run", "run", flag, value)
    assert done.returncode == 2 and f"{step.removesuffix('.py')}: argument {flag}: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_device_that_is_not_here(drawn, run, fails):
    assert "--device cuda:77: not available here" in fails(
        "evaluate.py", "--data", drawn, "--run", run, "--device", "cuda:77"
    )


def test_ctrl_c_while_sampling_keeps_the_features_that_were_there_and_the_way_to_go_on(drawn, run):
    before = (run / "1_features" / "features.npy").read_bytes()
    command = [sys.executable, "sample_features.py", "--data", str(drawn), "--run", str(run), "--weights", "random"]
    process = subprocess.Popen(
        [*command, "--backbone", "vgg11", "--batch-size", "1", "--size", "448", "--workers", "1"],
        cwd=HOME,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as in a terminal
    )
    deadline = time.monotonic() + 60
    while not list((run / "1_features").glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error and "stopped by Ctrl-C; " in error
    assert (run / "1_features" / "features.npy").read_bytes() == before
    assert (run / "1_features" / "config.json").is_file()
    is_kept = (run / "1_features" / "progress.json").is_file()  # not if the signal came before the first batch
    assert is_kept == bool(list((run / "1_features").glob("*.part"))) == ("--resume" in error)
