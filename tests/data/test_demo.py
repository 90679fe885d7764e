"""The commands of the demo: the five steps in order, and no download; test_readme runs them."""

from pathlib import Path

from data.demo import PORTRAIT, commands

COMMANDS = commands(Path("runs") / "a demo")
STEPS = ["sample_features.py", "train_cls.py", "train_seg.py", "evaluate.py", "visualize.py"]


def test_all_steps_share_a_run_and_download_nothing_and_only_the_last_two_see_the_test_split():
    assert [command[1] for command in COMMANDS[1:]] == STEPS and PORTRAIT.is_file()
    for command in COMMANDS[1:]:
        flags = dict(zip(command, command[1:]))
        assert flags["--run"] == str(Path("runs/a demo"))
        assert flags.get("--data", COMMANDS[0][3]) == COMMANDS[0][3]
        assert flags.get("--weights", "random") == "random"
        is_judged = command[1] in STEPS[-2:]
        assert flags.get("--split", "train") == ("test" if is_judged else "train")
