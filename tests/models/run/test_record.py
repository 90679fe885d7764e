"""What is said of a run and its network is what its files and modules are."""

from pathlib import Path

import numpy as np
import pytest

from data import UserError
from losses.metrics import load_image_scores
from models.checkpoint import load_segmenter, save_segmenter
from models.run import chain
from models.run.record import read_run


def test_the_record_of_a_run_is_what_its_steps_have_left(street):
    run = Path("run")
    segmenter, content = load_segmenter(run / "3_seg" / "best.pt")
    record = read_run(run, segmenter)
    assert record["configs"][3] == chain.finished(run, 3) and not record["scores_are_old"]
    assert [row["epoch"] for row in record["logs"][2]] == list(range(1, 21))
    _, _, counts = load_image_scores(run / "4_eval" / "per_image.npz")
    truth = counts[..., 0].sum(0)
    assert np.array_equal(record["confusion"].sum(1), truth), "rows are the ground truth"
    network = record["network"]
    assert network["backbone"].startswith("squeezenet1_1, frozen, ") and network["size"] == 48
    assert network["levels"][0] == ("tap 1", (64, 23, 23)) and len(network["head"]) == 5
    assert network["head"][1] == f"1×1 convolution 960 → 16\n{16 * 960 + 16:,} parameters"
    segmenter.stride += 1  # another network, though of these weights
    save_segmenter(run / "3_seg" / "best.pt", segmenter, made_from=content["made_from"])
    assert read_run(run, segmenter)["scores_are_old"] and chain.scored_another_network(run)
    for folder in ("1_features", "2_cls", "4_eval"):
        (run / folder / "config.json").unlink()
    (run / "3_seg" / "log.csv").unlink()  # as models.strokes leaves none
    record = read_run(run, segmenter)
    assert record["configs"][1] is record["configs"][2] is None and not record["logs"]
    assert record["confusion"] is record["metrics"] is None


def test_a_damaged_record_of_a_run_is_named(street):
    run = Path("run")
    segmenter, _ = chain.trained_segmenter(run, None)
    for name in ("2_cls/log.csv", "4_eval/metrics.json", "4_eval/confusion.csv"):
        whole = (run / name).read_bytes()
        for part in (b"", whole[: len(whole) // 2].replace(b"0", b"?")):
            (run / name).write_bytes(part)
            with pytest.raises(UserError, match=f"^run/{name}: cannot be read"):
                read_run(run, segmenter)
        (run / name).write_bytes(whole)
