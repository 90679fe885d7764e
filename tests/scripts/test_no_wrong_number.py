"""What would make a number wrong stops, or is said."""

from pathlib import Path

import numpy as np

from data.voc_files import read_ids
from tests.conftest import BACKBONE, DATA, change_head, change_masks
from tests.scripts.processes import metrics

QUICK = (*DATA, "--run", "run")
AGAIN = "run train_cls.py again, or use another --run"
STEP_1 = ("sample_features.py", *QUICK, *BACKBONE)


def test_classes_without_a_pixel_are_named_and_counted(street, succeeds):
    change_masks("shapes", lambda values: np.where(values == 7, 0, values))
    said = succeeds("evaluate.py", *QUICK, "--limit", "1", "--split", "val")
    assert "  note: no pixel of " in said
    assert "  note: no pixel of car" in succeeds(*STEP_1)
    found = metrics("run")
    assert f"mIoU {found['miou']:.4f} over {found['classes_in_mean']} of 21 classes" in said


def test_scores_of_an_earlier_network_are_not_compared(street, succeeds, fails):
    succeeds("evaluate.py", *QUICK, "--out", "kept")
    succeeds("losses/compare.py", "run", "kept")
    change_head("run/3_seg/best.pt", lambda weights: weights + 1)
    for place, scores in (("run", "run/4_eval"), ("kept", "kept")):
        said = fails("losses/compare.py", place, place)
        assert f"{scores}: scores of an earlier network; run step 4 again, for {place}" in said


def test_scoring_what_was_learned_is_noted_whatever_it_is_called(street, succeeds):
    known, score = "images have trained this network", ("evaluate.py", *QUICK)
    assert known not in succeeds(*score)
    assert f"note: 18 of the {known}" in succeeds(*score, "--split", "train")
    (learned, *_), (other, *_) = (read_ids(Path("shapes"), split) for split in ("train", "val"))
    for path in Path("shapes").glob(f"*/{learned}.*"):
        path.rename(path.with_stem("holiday"))
    Path("shapes/ImageSets/Segmentation/mixed.txt").write_text(f"holiday\n{other}")
    # Step 3 has started from what the head of step 2 had learned.
    more = ("--init", "run", "--run", "more", "--epochs", 1, "--split", "val")
    succeeds("train_seg.py", *DATA, *more)
    for run, seen in (("run", 1), ("more", 2)):
        said = succeeds("evaluate.py", *DATA, "--run", run, "--split", "mixed")
        assert f"  note: {seen} of the {known}" in said
        assert metrics(run)["images_trained_on"] == seen


def test_what_was_made_before_an_earlier_step_ran_again_is_refused(street, succeeds, fails):
    steps = ("train_seg.py", "evaluate.py", "visualize.py")
    succeeds(*STEP_1, "--size", 32)
    for script in steps:
        assert fails(script, *QUICK).endswith(AGAIN)
    succeeds("train_cls.py", "--run", "run", "--epochs", 1)
    for script in steps[1:]:
        line = fails(script, *QUICK)
        assert "3_seg/best.pt: made from something else than run/2_cls holds now; run tr" in line
    assert "3_seg/last.pt: made from something else" in fails("train_seg.py", *QUICK, "--resume")
    succeeds("train_seg.py", *QUICK, "--epochs", 1)
    succeeds("evaluate.py", *QUICK)


def test_a_head_of_another_step_1_is_refused_but_of_the_same_kept(street, succeeds, fails):
    """`walked` has drawn 5 pixels of each class, with seed 0, in all of train."""
    same = (*STEP_1, "--per-class", 5)
    for flags in (("--context", "image"), ("--per-class", 6), ("--limit", 17)):
        succeeds(*same, *flags)
        assert fails("evaluate.py", *QUICK).endswith(AGAIN), flags
    succeeds(*same)
    succeeds("evaluate.py", *QUICK)
    change_masks("shapes", lambda values: np.where(values == 255, 255, 20 * (values > 0)))
    succeeds(*same)
    assert fails("evaluate.py", *QUICK).endswith(AGAIN), "of other labels"
