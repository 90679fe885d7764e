"""The benchmark: its sides agree, it would notice if not, and its JSON holds what it measured."""

import json

import pytest
import torch

pytest.importorskip("resource", reason="it reads the peak of memory in Unix's way")

from tests import benchmark, benchmark_sides

CPU = torch.device("cpu")
TINY = benchmark.Settings(
    size=64, drawn=80, warm_up=0, repeats=1, images=2, memory=(2, 4), rows=600, epochs=1
)
FIGURES = ["ours_s", "naive_s", "bare_s", "ours_over_bare", "naive_over_ours"]
PEAKS = ["peak_mb", "naive_peak_mb"]
EXACT = {"logits": 1e-6, "gradients": 2e-6, "features": 3e-6, "bf16_agreement": 0.98765}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    benchmark_sides.prepare(folder, 7, TINY.size, TINY.drawn)
    return folder


@pytest.fixture
def work(folder, request):
    backbone = getattr(request, "param", "vgg11")
    return benchmark_sides.Work(folder, TINY.images, CPU, backbone)


@pytest.mark.parametrize(
    ("part", "differs"),
    [
        (None, set()),
        ("head.layers.1.weight", {"logits", "gradients"}),
        ("features.0.weight", {"logits", "gradients", "features"}),
    ],
)
def test_the_sides_agree_and_a_difference_in_any_part_is_noticed(work, part, differs):
    if part:
        with torch.no_grad():
            work.textbook.get_parameter(part)[0].mul_(1.1)
    found = benchmark_sides.exactness(work)
    agreement = found.pop("bf16_agreement")
    assert {name for name in found if found[name] > benchmark.TOLERANCE} == differs
    assert list(found) == list(benchmark.EXACT)
    assert 0.5 < agreement <= 1


@pytest.mark.parametrize("work", ["resnet18", "mobilenet_v2"], indirect=True)
def test_the_sides_of_the_other_backbones_agree(work):
    # In float64: the features of so small a picture hardly vary, which enlarges rounding.
    work.segmenter.double(), work.textbook.double()
    found = benchmark_sides.exactness(work)
    assert max(found[name] for name in benchmark.EXACT) < benchmark.TOLERANCE


@pytest.mark.parametrize(
    ("work", "names"),
    [
        ("vgg11", ["sample", "predict", "predict_bf16", "train_step", "train_step_pixels"]),
        ("resnet18", ["predict_resnet18", "train_step_resnet18"]),
        ("mobilenet_v2", ["predict_mobilenet_v2", "train_step_mobilenet_v2"]),
    ],
    indirect=["work"],
)
def test_every_row_is_timed_on_all_sides(work, names):
    rows = [benchmark.timed_row(name, work, TINY) for name in work.calls]
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert list(row) == ["name", *FIGURES, *PEAKS, "note"]
        assert all(row[key] > 0 for key in FIGURES)


def test_both_sides_of_step_1_store_the_same_hypercolumns(work):
    stores = []
    for side in ("ours", "naive"):
        work.calls["sample"][side]()
        stores.append(torch.tensor(benchmark.open_rows(work.place)))
    ours, textbook = stores
    assert ours.shape[0] > 2 and ours.std(0).max() > 0
    assert torch.corrcoef(torch.stack([ours.flatten(), textbook.flatten()]))[0, 1] > 0.95


@pytest.mark.parametrize(
    ("work", "row"),
    [("vgg11", "train_step_pixels"), ("resnet18", "train_step_resnet18")],
    indirect=["work"],
)
def test_a_training_step_changes_the_head_alone(work, row):
    for side, network in (("ours", work.segmenter), ("naive", work.textbook)):
        before = {key: value.clone() for key, value in network.state_dict().items()}
        work.calls[row][side]()
        after = network.state_dict()
        changed = {key for key in after if not torch.equal(before[key], after[key])}
        assert changed == {f"head.{key}" for key, _ in network.head.named_parameters()}


def test_its_commands_are_those_of_the_scripts(folder, in_process, monkeypatch):
    monkeypatch.chdir(folder)
    for command in (
        lambda: benchmark.step_command(1, 2, TINY.size, CPU),
        lambda: benchmark.step_command(4, 2, TINY.size, CPU),
        lambda: benchmark.train_cls_command(folder, TINY, CPU),
    ):
        done = in_process(*command().split())
        assert done.returncode == 0, done.stderr


def test_a_script_runs_in_the_folder_and_is_measured(tmp_path):
    (tmp_path / "script.py").write_text("open('here', 'w'); held = bytearray(50_000_000)")
    seconds, peak = benchmark.run_script(f"{tmp_path}/script.py", tmp_path, threads=1)
    assert (tmp_path / "here").exists()
    assert 0 < seconds < 60
    assert peak > 50


def test_a_script_that_fails_says_why(tmp_path):
    (tmp_path / "script.py").write_text("import sys; sys.stderr.write('so it is'); sys.exit(3)")
    with pytest.raises(RuntimeError, match="ended with 3:\nso it is"):
        benchmark.run_script(f"{tmp_path}/script.py", tmp_path, threads=1)


def test_the_report_is_a_table_and_json_with_floats_of_4_digits(tmp_path, capsys):
    rows = [benchmark.row("predict", "a note", ours_s=0.123456), benchmark.row("memory")]
    file = tmp_path / "figures.json"
    env = benchmark.environment(CPU)
    assert benchmark.report({"env": env, "rows": rows, "exactness": EXACT}, file) == 0
    content = json.loads(file.read_text())
    nothing = dict.fromkeys(FIGURES + PEAKS)
    assert content["rows"] == [
        {"name": "predict", **nothing, "ours_s": 0.1235, "note": "a note"},
        {"name": "memory", **nothing, "note": ""},
    ]
    assert content["exactness"] == EXACT | {"bf16_agreement": 0.9877}
    keys = {"torch", "torchvision", "python", "platform", "cpu", "threads", "device", "time"}
    assert keys <= set(content["env"])
    printed = capsys.readouterr().out
    assert "predict  0.1235  -" in printed and "98.77%" in printed


@pytest.mark.parametrize("value", [2e-4, float("nan")])
def test_sides_that_differ_end_with_exit_code_1_and_a_line(value, capsys):
    content = {"rows": [benchmark.row("predict")], "exactness": EXACT | {"gradients": value}}
    assert benchmark.report(content, None) == 1
    assert capsys.readouterr().err == "benchmark: more than 0.0001 apart: gradients\n"
