"""The benchmark: its sides agree and it would notice if not; its rows and its JSON, at a size that takes seconds."""

import json

import pytest
import torch

WHY = "it reads the peak of memory in a way that this system does not have"
benchmark = pytest.importorskip("tests.benchmark", reason=WHY)
sides = pytest.importorskip("tests.sides", reason=WHY)

FIGURES = {"ours_s", "naive_s", "bare_s", "ours_over_bare", "naive_over_ours", "peak_mb", "naive_peak_mb"}
TINY = benchmark.Settings(
    size=64, drawn=80, warm_up=0, repeats=1, images=2, peaks=("predict",), memory=(2, 4), rows=600, epochs=1
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    sides.prepare(folder, 7, TINY.size, TINY.drawn)
    return folder


@pytest.fixture
def work(prepared):
    return sides.Work(prepared, TINY.images, torch.device("cpu"))


@pytest.fixture
def main(in_process, monkeypatch, capsys):
    """The benchmark's main at a tiny size, with its scripts in this process, one after the other."""

    def script(*arguments, threads):
        done = in_process(*arguments)
        assert done.returncode == 0, done.stderr
        return 12.3456, 100.0

    monkeypatch.setattr(benchmark, "script", script)
    monkeypatch.setattr(benchmark, "two_at_a_time", lambda calls: [call() for call in calls])
    monkeypatch.setattr(benchmark, "QUICK", TINY)
    monkeypatch.setattr(benchmark, "SCALE", (1, 2))
    threads = torch.get_num_threads()
    yield lambda *arguments: (benchmark.main(["--quick", *map(str, arguments)]), capsys.readouterr())
    torch.set_num_threads(threads)


def test_both_sides_agree(work):
    found = sides.exactness(work)
    assert set(found) == {*benchmark.EXACT, "bf16_agreement"}
    assert all(found[name] <= benchmark.TOLERANCE for name in benchmark.EXACT), found
    assert 0 < found["bf16_agreement"] <= 1


@pytest.mark.parametrize(
    ("part", "differs"),
    [("head.layers.3.weight", {"logits", "gradients"}), ("features.0.weight", set(benchmark.EXACT))],
)
def test_a_difference_in_any_part_is_noticed(work, part, differs):
    with torch.no_grad():
        work.textbook.get_parameter(part)[0].mul_(1.1)
    found = sides.exactness(work)
    assert {name for name in benchmark.EXACT if found[name] > benchmark.TOLERANCE} == differs


def test_the_table_and_the_json_hold_every_row(main, tmp_path):
    file = tmp_path / "figures.json"
    code, printed = main("--json", file)
    assert code == 0, printed.err
    content = json.loads(file.read_text())
    assert set(content) == {"env", "rows", "exactness"}
    assert {"torch", "torchvision", "python", "platform", "cpu", "threads", "device", "time"} == set(content["env"])
    rows = {row["name"]: row for row in content["rows"]}
    timed = ["sample", "predict", "predict_bf16", "train_step", "train_step_pixels"]
    assert list(rows) == [*timed, "train_cls", "memory"]
    for name, row in rows.items():
        assert set(row) == {"name", *FIGURES, "note"}
        given = {key for key in FIGURES if row[key] is not None}
        if name in timed:
            assert given == FIGURES - (set() if name == "predict" else {"peak_mb", "naive_peak_mb"})
            assert all(row[key] > 0 for key in given - {"peak_mb", "naive_peak_mb"})
        else:
            assert given == {"ours_s"} if name == "train_cls" else {"peak_mb"}
        assert name in printed.out
    assert rows["train_cls"]["ours_s"] == 12.35, "floats are given to 4 digits"


def test_scale_states_costs_and_slopes(main, tmp_path):
    file = tmp_path / "figures.json"
    code, printed = main("--scale", "--json", file)
    content = json.loads(file.read_text())
    assert code == 0
    assert content["rows"] == []
    assert [(run["step"], run["images"]) for run in content["scale"]["runs"]] == [
        (step, images) for step in (1, 4) for images in (1, 2)
    ]
    assert [(slope["step"], slope["slope_s"], slope["slope_mb"]) for slope in content["scale"]["slopes"]] == [
        (1, 0.0, 0.0),
        (4, 0.0, 0.0),
    ]
    assert "seconds_per_image" in printed.out


@pytest.mark.parametrize("value", [2e-4, float("nan")])
def test_sides_that_differ_end_with_exit_code_1_and_a_line(value, capsys):
    found = {"logits": 1e-6, "gradients": value, "features": 1e-6, "bf16_agreement": 0.99}
    content = benchmark.rounded({"rows": [benchmark.row("predict")], "exactness": found})
    assert benchmark.report(content, None) == 1
    assert capsys.readouterr().err == "benchmark: more than 0.0001 apart: gradients\n"


def test_a_script_is_measured_alone_whatever_this_process_holds():
    seconds, peak = benchmark.script("-c", "print('any'); held = bytearray(50_000_000)", threads=1)
    assert 0 < seconds < 60
    assert 50 < peak < 100, "an interpreter and 50 MB; torch alone, which is loaded here, takes more"


def test_a_script_that_fails_says_why():
    with pytest.raises(RuntimeError, match="ended with 3:\nso it is"):
        benchmark.script("-c", "import sys; sys.stderr.write('so it is'); sys.exit(3)", threads=1)
