"""What earlier steps have left: whether one has finished, what fits what, which network it is."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data import UserError
from models.checkpoint import TRAINED, load_segmenter
from models.run import folder
from models.run.folder import CONFIG, CONFIG_FORMAT, PER_IMAGE, STEPS, read, read_json, step_folder
from models.segmenter import Segmenter

VOC_FOLDER = Path("data/VOCdevkit/VOC2012")


def scores_folder(place: Path) -> Path:
    """Where scores are: `place` itself if `evaluate.py --out` has filled it, else that of a run."""
    return place if (place / PER_IMAGE).is_file() else step_folder(place, 4)


def is_finished(run: Path, step: int) -> bool:
    """Whether a step has left a config.json."""
    return (step_folder(run, step) / CONFIG).is_file()


def finished(run: Path, step: int) -> dict[str, Any]:
    """The config.json of a step that has finished; of step 4 `run` may be any `scores_folder`.

    Raises:
        UserError: it has not, or the file cannot be read or is from another version.
    """
    place = scores_folder(run) if step == 4 else step_folder(run, step)
    path, script = place / CONFIG, f"{STEPS[step][0]}.py"
    command = folder.shell_line(["python", script, "--run", run])
    if not path.is_file():
        raise UserError(f"{place}: step {step} has not finished there; run it first: {command}")
    again = f"run step {step} again: {command}"
    config = read(read_json, path, again)
    if (version := config.get("format")) != CONFIG_FORMAT:
        raise UserError(
            f"{path}: written by another version (format {version}, this one reads "
            f"{CONFIG_FORMAT}); {again}"
        )
    return config


def data_of(run: Path | None, steps: Iterable[int]) -> Path:
    """The data set of the first of these steps of a run that has finished, else VOC.

    A config.json that cannot be read is named by what needs more of it.
    """
    for step in steps if run else ():
        with suppress(UserError):
            if "data" in (config := finished(run, step)):
                return Path(config["data"])
    return VOC_FOLDER


def step_network(run: Path, step: int, name: str) -> tuple[Segmenter, Path, dict[str, Any]]:
    """The network in a file of step 2 or 3, on the CPU; the file, and all that it holds.

    Raises:
        UserError: it is not there or cannot be read; or its "made_from", or that of a step before
            it, is not the "id" of what the run holds now, see `models.run.folder.save_config`.
    """
    file = source = step_folder(run, step) / name
    segmenter, content = load_segmenter(file)
    made_from = content.get("made_from")
    while step > 1 and made_from and is_finished(run, step - 1):
        before = finished(run, step - 1)
        if before["id"] != made_from:
            raise UserError(
                f"{source}: made from something else than {step_folder(run, step - 1)} holds now; "
                f"run {STEPS[step][0]}.py again, or use another --run"
            )
        step, made_from = step - 1, before.get("made_from")
        source = step_folder(run, step)
    return segmenter, file, content


def trained_segmenter(run: Path | None, checkpoint: Path | None) -> tuple[Segmenter, Path]:
    """The network to use, on the CPU, and its file: `checkpoint`, else step 3's or 2's of a run.

    A checkpoint may be a run's folder, too. Without either it is the network in the box.

    Raises:
        UserError: none of them is there or can be read, or an earlier step was run again since.
    """
    place = checkpoint or run
    if place is None:
        return load_segmenter(TRAINED / "voc.pt")[0], Path("voc")
    if place != run and not any(step_folder(place, step).is_dir() for step in (2, 3)):
        return load_segmenter(place)[0], place
    if (step_folder(place, 3) / "best.pt").is_file():
        return step_network(place, 3, "best.pt")[:2]
    finished(place, 2)
    return step_network(place, 2, "dense.pt")[:2]


def training_start(
    run: Path, init: Path | None, resume: bool
) -> tuple[Segmenter, Path, dict[str, Any], dict[str, Any] | None]:
    """What the training starts from: last.pt of an interrupted one, --init, or step 2's head.

    Returns:
        The network; its file; what every checkpoint says of where the training began: "made_from",
        the id of step 2, and "before", what had trained it by then; and all that last.pt holds.
    """
    if resume and (step_folder(run, 3) / "last.pt").is_file():
        segmenter, file, saved = step_network(run, 3, "last.pt")
        if saved["training"]["log"]:
            step_network(run, 3, "best.pt")  # the training may not become better than this
        return segmenter, file, {name: saved[name] for name in ("made_from", "before")}, saved
    if init:
        segmenter, file = trained_segmenter(None, init)
        segmenter.history = {f"init: {step}": made for step, made in segmenter.history.items()}
        made_from = None
    else:
        made_from = finished(run, 2)["id"]
        segmenter, file, _ = step_network(run, 2, "dense.pt")
    before = f"; before that {segmenter.trained_on}"
    return segmenter, file, {"made_from": made_from, "before": before}, None


def scored_another_network(run: Path) -> bool:
    """Whether the network that step 4 has scored is not the run's any more.

    Args:
        run: or a folder of `evaluate.py --out`; whether its checkpoint has changed since.
    """
    config = finished(run, 4)
    if not config["checkpoint"]:  # predictions that any program made
        return False
    is_best = config["scored_best"] and scores_folder(run) != run
    chosen = None if is_best else Path(config["checkpoint"])
    if chosen and not chosen.is_file():
        return False  # nothing is there to compare with
    return trained_segmenter(run, chosen)[0].identity() != config["made_from"]


def check_classes(trained: Sequence[str], given: Sequence[str], source: Path, data: Path) -> None:
    """Refuses a data set with other classes than the network was trained on; names the first."""
    for index, (ours, theirs) in enumerate(zip_longest(trained, given, fillvalue="none")):
        if ours != theirs:
            raise UserError(
                f"{data}: class {index} is {theirs!r} there but {ours!r} in {source}; "
                "use the data it was trained on"
            )


def check_resumed(before: Mapping[str, Any], settings: Mapping[str, Any], last: Path) -> None:
    """Refuses to resume with other settings; more epochs, too, as the rate has decayed by then."""
    for name, value in settings.items():
        if before.get(name) != value:
            raise UserError(
                f"--resume: {last} was made with {name} {before.get(name)}, not {value}; keep to "
                "that, or train on from its network: the same command with another --run and "
                f"--init {last.with_name('best.pt')}, without --resume"
            )
