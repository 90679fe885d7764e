"""What would make a number wrong stops, or is said."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HOME = Path(__file__).parent.parent.parent
QUICK = ("--workers", "0", "--data", "shapes", "--run", "run")
STEP_1 = (*QUICK, "--backbone", "squeezenet1_1", "--weights", "random", "--size", "48")


def each_mask(place: Path, change) -> None:
    """Replaces every mask of the data set by what `change` makes of its values."""
    for path in (place / "shapes" / "SegmentationClass").glob("*.png"):
        values = np.asarray(Image.open(path))
        Image.fromarray(change(values).astype(np.uint8)).save(path)


def first_id(split: str) -> str:
    """The first id of a list of the data set."""
    return Path(f"shapes/ImageSets/Segmentation/{split}.txt").read_text().split()[0]


def with_weights(path: Path, change) -> None:
    """Changes the weights of a checkpoint by its dict of tensors."""
    content = torch.load(path, weights_only=True)
    change(content["state"])
    torch.save(content, path)


@pytest.mark.parametrize("script, flags", [("sample_features", STEP_1), ("evaluate", QUICK)])
def test_binary_masks_of_0_and_255_are_refused(script, flags, street, fails):
    each_mask(street, lambda values: np.where(values > 0, 255, 0))
    said = fails(f"{script}.py", *flags)
    assert "hold only 0 and 255, and 255 is void here: save the object as 1" in said


def test_classes_without_a_pixel_are_named_and_counted(street, succeeds):
    each_mask(street, lambda values: np.where(values == 7, 0, values))
    assert "  note: no pixel of car" in succeeds("sample_features.py", *STEP_1)
    said = succeeds("evaluate.py", *QUICK, "--limit", "1", "--split", "val")
    assert "  note: no pixel of " in said
    metrics = json.loads(Path("run/4_eval/metrics.json").read_text())
    assert f"mIoU {metrics['miou']:.4f} over {metrics['classes_in_mean']} of 21 classes" in said


def test_scores_of_an_earlier_network_are_not_compared(street, succeeds, fails):
    succeeds("losses/compare.py", "run", "run")

    def other(state):
        state["head.layers.6.bias"] += 1

    with_weights(Path("run/3_seg/best.pt"), other)
    said = fails("losses/compare.py", "run", "run")
    assert "run/4_eval: scores of an earlier network; run step 4 again" in said


def test_two_runs_in_one_folder_are_refused_and_a_killed_one_is_forgotten(street, fails, succeeds):
    holds = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from models.run import folder
        with folder.claim(Path(sys.argv[1])):
            print("claimed", flush=True)
            time.sleep(60)
    """)
    command = [sys.executable, "-c", holds, str(street / "run" / "2_cls")]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout.readline() == b"claimed\n"
        before = Path("run/2_cls/dense.pt").read_bytes()
        said = fails("train_cls.py", "--run", "run", "--epochs", "1")
        assert f"run/2_cls: process {holder.pid} on " in said and "is writing there" in said
        assert Path("run/2_cls/dense.pt").read_bytes() == before
        holder.kill()
    succeeds("train_cls.py", "--run", "run", "--epochs", "1")


def test_a_training_without_resume_keeps_the_earlier_one_and_all_files(street, succeeds):
    best = Path("run/3_seg/best.pt").read_bytes()
    shutil.copy("run/3_seg/best.pt", "run/3_seg/best_backup.pt")
    said = succeeds("train_seg.py", *QUICK, "--epochs", "1")
    assert "note: what an earlier training left is now in run/3_seg.1" in said
    for name in ("best.pt", "best_backup.pt"):
        assert Path("run/3_seg.1", name).read_bytes() == best
    succeeds("train_seg.py", *QUICK, "--epochs", "1")
    assert Path("run/3_seg.2/best.pt").is_file()


def test_training_on_validation_images_is_noted(street, succeeds):
    assert "validation images are also" not in succeeds("train_seg.py", *QUICK, "--epochs", "1")
    said = succeeds("train_seg.py", *QUICK, "--epochs", "1", "--split", "trainval")
    assert "  note: 3 of 3 validation images are also trained on" in said
    assert json.loads(Path("run/3_seg/config.json").read_text())["val_images_trained_on"] == 3


def test_a_jpeg_called_png_is_no_mask(street, fails):
    path = Path("shapes/SegmentationClass", f"{first_id('train')}.png")
    Image.open(path).convert("L").save(path, "JPEG")
    assert f"{path}: cannot be read as an image" in fails("sample_features.py", *STEP_1)


def test_no_file_starts_a_program(street, fails):
    path = Path("shapes/JPEGImages", f"{first_id('train')}.jpg")
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n")
    assert f"{path}: cannot be read as an image" in fails("sample_features.py", *STEP_1)


@pytest.mark.parametrize("script", ["evaluate", "visualize"])
def test_weights_that_are_not_finite_stop_with_the_image(script, street, fails):
    def damaged(state):
        state["head.layers.6.weight"].fill_(torch.nan)

    with_weights(Path("run/3_seg/best.pt"), damaged)
    said = fails(f"{script}.py", *QUICK)
    assert f"{first_id('val')}: the network's scores are not finite" in said


def test_a_head_that_learned_nothing_is_said_so(street, succeeds):
    said = succeeds("train_cls.py", "--run", "run", "--epochs", "1", "--lr", "1e-9")
    assert "note: no better than always naming the most frequent class" in said
    said = succeeds("train_seg.py", *QUICK, "--epochs", "1")
    assert "note: the head of step 2 is no better than always naming" in said


@pytest.mark.parametrize(
    "script, flag, value, needed",
    [
        ("train_seg", "--backbone-lr", "0.1", "--finetune-backbone"),
        ("train_seg", "--frozen-stages", "1", "--finetune-backbone"),
        ("visualize", "--seed", "1", "--sort random"),
    ],
)
def test_a_flag_without_effect_is_refused(script, flag, value, needed, street, fails):
    said = fails(f"{script}.py", *QUICK, flag, value)
    assert f"argument {flag}: has no effect without {needed}" in said


def test_photos_left_out_are_listed_and_a_damaged_one_does_not_end_the_others(street, in_process):
    photos = street / "photos"
    photos.mkdir()
    source = next(Path("shapes/JPEGImages").glob("*.jpg"))
    for name in ("a.Jpg", "b.jfif", "notes.txt", "c.heic"):
        shutil.copy(source, photos / name)
    (photos / "broken.jpg").write_bytes(source.read_bytes()[:100])
    flags = ("--workers", "0", "--run", "run", "--image", "photos", "--out", "seen")
    done = in_process("visualize.py", *flags)
    assert "  note: 2 files left out: c.heic, notes.txt" in done.stdout
    assert done.returncode == 2
    assert "left out photos/broken.jpg: cannot be read as an image" in done.stderr
    assert "the others are done" in done.stderr and len(done.stderr.splitlines()) == 1
    assert {path.name for path in Path("seen").glob("*.png")} == {"a.png", "b.png"}


def test_heic_photos_are_explained(street, fails):
    Path("c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    said = fails("visualize.py", "--run", "run", "--image", "c.heic", "--out", "seen")
    assert "HEIC photos are not read; save it as JPEG" in said


def test_the_next_command_keeps_the_choice_of_images(street, succeeds):
    succeeds("sample_features.py", *STEP_1, "--limit", "9", "--split", "trainval")
    said = succeeds("train_cls.py", "--run", "run", "--epochs", "1")
    assert said.splitlines()[-1] == (
        "next: python train_seg.py --data shapes --split trainval --limit 9 --run run"
    )


def test_a_checkpoint_that_would_fill_the_memory_is_refused(street, fails):
    with zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**7))
    said = fails("evaluate.py", *QUICK, "--checkpoint", "bomb.pt")
    assert "it would unpack to many times its size" in said


def test_a_picture_that_would_fill_the_memory_is_refused(street, fails):
    Image.new("1", (20_000, 8_000)).save("large.png")
    said = fails("visualize.py", "--run", "run", "--image", "large.png", "--out", "seen")
    assert "large.png: cannot be read as an image (Image size (160000000 pixels) exceeds" in said


@pytest.mark.parametrize("line", ["9" * 5000 + " 1 2", "a 9" + "9" * 5000 + " 1 2", "a\x1b[31m"])
def test_odd_lines_of_classes_txt_are_refused(line, street, fails):
    Path("shapes/classes.txt").write_text(f"background\n{line}\n")
    assert "classes.txt, line 2" in fails("sample_features.py", *STEP_1)


def test_odd_values_in_the_files_of_a_run_are_one_line(street, fails):
    config = Path("run/1_features/config.json")
    good = config.read_text()
    config.write_text(json.dumps({**json.loads(good), "classes": 5}))
    assert f"{config}: cannot be read" in fails("train_cls.py", "--run", "run")
    config.write_text(good)
    for name, value in (("size", -1), ("stride", 0.5)):
        content = torch.load("run/3_seg/best.pt", weights_only=True)
        torch.save({**content, name: value}, "odd.pt")
        said = fails("evaluate.py", *QUICK, "--checkpoint", "odd.pt")
        assert f"odd.pt: its {name} is {value}; is the file damaged?" in said


def test_ids_with_control_characters_do_not_reach_the_terminal(street, fails):
    Path("shapes/ImageSets/Segmentation/train.txt").write_text("a\x1b[31mb\n")
    said = fails("sample_features.py", *STEP_1)
    assert r"'a\x1b[31mb' is not an image id" in said and "\x1b" not in said


def test_the_help_states_only_defaults_that_say_something(in_process):
    said = in_process("train_seg.py", "--help").stdout
    assert "(default: 10)" in said
    assert "(default: False)" not in said and "(default: None)" not in said
