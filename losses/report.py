"""The write-up of a run as pages, from plain values: settings, architecture, data, training, results, predictions."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from losses.page import BOTTOM, GREY, HEIGHT, INK, MARGIN, MONOSPACE, POINTS, TOP, WIDTH, Page
from losses.plots import draw_confusion, draw_counts, draw_curve, draw_iou_bars, draw_moments

TITLE = "Semantic segmentation with hypercolumns"
RIGHT = WIDTH - MARGIN
ROOM = WIDTH - 2 * MARGIN
NAME = 1.1  # inches that the name of a class may take
AXIS = 0.6  # inches that a chart needs beside its bars
PICTURE_DPI = 200
LONGEST = 6  # lines of a command
KINDS = {
    "best": "best: the highest mIoU",
    "typical": "typical: mIoU near the median",
    "worst": "worst: the lowest mIoU",
    "": "",
}
MISTAKES = 12  # pairs of classes listed beside the confusion matrix

Row = Mapping[str, float | None]


def report_pages(
    *,
    run: str,
    facts: Mapping[str, str],
    settings: Mapping[str, Mapping[str, str] | None],
    sampling: Mapping[str, Any] | None,
    logs: Mapping[str, Sequence[Row] | None],
    metrics: Mapping[str, Any] | None,
    confusion: np.ndarray | None,
    commands: Mapping[str, Sequence[str] | None],
    versions: Mapping[str, Mapping[str, str] | None],
    architecture: Figure,
    shown: str,
    pictures: Path,
    mious: Mapping[str, float | None],
) -> list[Figure]:
    """The pages of the write-up, A4 landscape, to be saved with `save_pages`.

    The dicts are by step, a script's name; None is a step that has not been run to its end, and the page says so.

    Args:
        run: name of the run.
        facts: a line of text each, by what it is about.
        settings: of each step, values as text.
        sampling: "names" of the C classes, their "counts" of sampled pixels, names of the "levels", their "channels",
            "mean" and "std" (Z,) of the features.
        logs: the rows of each training, one an epoch, with "epoch" among the keys.
        metrics: "miou", "pixel_accuracy", "mean_accuracy", "fw_iou" (0..1), "per_class" (IoU or None by name),
            "protocol" and what was "scored" in words.
        confusion: (C, C) pixels, rows the ground truth; None if unknown.
        commands: of each step, in words; none if unknown.
        versions: of the software of each step.
        architecture: a drawing, A4 landscape, that leaves room for title and page number; it becomes one of the pages.
        shown: which pictures have been drawn, and by which network, in words.
        pictures: folder with NAME.png of each picture drawn.
        mious: of each of them, by name; None where it has no ground truth.
    """
    pages = [
        _title_page(run, facts, settings, metrics),
        Page("Architecture", architecture),
        _data_page(sampling),
        _training_page(logs),
        *_result_pages(metrics, confusion),
        *_prediction_pages(shown, pictures, mious),
        _origin_page(commands, versions),
    ]
    for number, page in enumerate(pages, start=1):
        page.write(MARGIN, HEIGHT - 0.35, page.fit(f"{TITLE} · {run}", ROOM - 1, 8), 8, GREY)
        page.write(RIGHT, HEIGHT - 0.35, f"{number} / {len(pages)}", 8, GREY, ha="right")
    return [page.settle() for page in pages]


def save_pages(file: BinaryIO, pages: Sequence[Figure]) -> None:
    """Writes the pages as PDF; equal pages give equal bytes, whenever they are written."""
    with PdfPages(file, metadata={"Title": TITLE, "CreationDate": None}) as document:
        for page in pages:
            document.savefig(page)


def choose(mious: Mapping[str, float | None]) -> dict[str, list[str]]:
    """The pictures worth showing, by kind: "best", "typical" (around the median), "worst"; two each of six and more.

    Of no kind, "", are the only one with a score, and the first six where none has.
    """
    scored = [name for name, miou in mious.items() if miou is not None]
    ranked = sorted(scored, key=lambda name: -mious[name])
    each = 2 if len(ranked) >= 6 else 1
    middle = (len(ranked) - each) // 2
    if len(ranked) < 2:
        return {"": ranked or list(mious)[:6]}
    kinds = {"best": ranked[:each], "typical": ranked[middle : middle + each], "worst": ranked[-each:]}
    return kinds if len(ranked) > 2 else {kind: kinds[kind] for kind in ("best", "worst")}


def _not_run(step: str) -> str:
    return f"{step}.py has not been run to its end, so there is nothing to show here."


def _title_page(
    run: str,
    facts: Mapping[str, str],
    settings: Mapping[str, Mapping[str, str] | None],
    metrics: Mapping[str, Any] | None,
) -> Page:
    page = Page(TITLE)
    page.write(MARGIN, TOP, page.fit(run, ROOM, 11), 11, GREY)
    y = TOP + 0.3
    names = max(page.width(name) for name in facts)
    for name, fact in facts.items():
        page.write(MARGIN, y, name, color=GREY)
        y = page.write_lines(MARGIN + names + 0.2, y, page.wrap(fact.split(), ROOM - names - 0.2))
    if metrics:
        y = _scores(page, y + 0.3, metrics)
    _settings_table(page, y + 0.15, settings)
    return page


def _scores(page: Page, y: float, metrics: Mapping[str, Any]) -> float:
    """The scores in large figures; the y below them."""
    scores = {"mIoU": "miou", "pixel accuracy": "pixel_accuracy", "mean accuracy": "mean_accuracy", "fw-IoU": "fw_iou"}
    for index, (label, key) in enumerate(scores.items()):
        x = MARGIN + index * ROOM / len(scores)
        page.write(x, y + 0.1, f"{metrics[key]:.3f}", 19)
        page.write(x, y + 0.3, label, color=GREY)
    return y + 0.5


def _settings_table(page: Page, top: float, settings: Mapping[str, Mapping[str, str] | None]) -> None:
    """All settings in four columns, read one after the other, each step under its heading."""
    columns, gap = 4, 0.3
    width = (ROOM - (columns - 1) * gap) / columns
    blocks = [
        [(step, None), *(values.items() if values else [("not run to its end", "")])]
        for step, values in settings.items()
    ]
    lines = [line for block in blocks for line in [*block, ("", "")]]
    page.write(MARGIN, top + 0.05, "Settings, without flags that are off", 11, weight="bold")
    top += 0.3
    rows = math.ceil(len(lines) / columns) + 1
    pitch = min(0.19, (BOTTOM - top) / rows)  # inches
    size = min(8, 0.62 * POINTS * pitch)
    column = row = 0
    for name, value in lines:
        is_heading = value is None
        if row >= rows or is_heading and row >= rows - 1:  # no heading at the foot of a column
            column, row = column + 1, 0
        if not name and row == 0:
            continue
        x, y = MARGIN + column * (width + gap), top + row * pitch
        if is_heading:
            page.write(x, y, page.fit(name, width, size, weight="bold"), size, weight="bold")
        else:
            name = page.fit(name, width / 2, size)
            page.write(x, y, name, size, GREY)
            page.write(x + width, y, page.fit(value, width - page.width(name, size) - 0.12, size), size, ha="right")
        row += 1


def _data_page(sampling: Mapping[str, Any] | None) -> Page:
    page = Page("Data and sampling")
    if sampling is None:
        page.write(MARGIN, TOP, _not_run("sample_features"))
        return page
    counts, channels = sampling["counts"], sampling["channels"]
    top = TOP + 0.15
    columns, size, height = _columns(len(counts), 3, BOTTOM - top)
    split = MARGIN + 0.58 * ROOM
    page.write(MARGIN, TOP, f"Sampled pixels of each class: {sum(counts):,} in all", 11, weight="bold")
    page.write(split + 0.3, TOP, f"Features: Z = {sum(channels):,} channels", 11, weight="bold")
    page.charts(MARGIN, top, RIGHT, BOTTOM)
    left, right = page.figure.subfigures(1, 2, width_ratios=[0.58, 0.42], wspace=0.03)
    if height < BOTTOM - top:
        left = left.subfigures(2, 1, height_ratios=[height, BOTTOM - top - height])[0]
    names = [page.fit(name, NAME, size) for name in sampling["names"]]
    draw_counts(left, names, counts, columns, size)
    draw_moments(right, sampling["levels"], channels, sampling["mean"], sampling["std"])
    return page


def _columns(classes: int, most: int, room: float) -> tuple[int, float, float]:
    """How a class a row fits into so many inches: columns, size of the names in points, inches needed."""
    columns = min(most, math.ceil(classes / 24))
    rows = math.ceil(classes / columns)
    pitch = min(0.3, (room - AXIS) / rows)
    return columns, min(9, 0.75 * POINTS * pitch), pitch * rows + AXIS


def _training_page(logs: Mapping[str, Sequence[Row] | None]) -> Page:
    page = Page("Training")
    parts = page.charts(MARGIN, TOP - 0.2, RIGHT, BOTTOM).subfigures(len(logs), 1, hspace=0.1)
    for part, (step, rows) in zip(np.atleast_1d(parts), logs.items()):
        epochs = sum(row["epoch"] > 0 for row in rows or ())
        heading = f"{step}: {epochs} epoch" + "s" * (epochs != 1) if rows else _not_run(step)
        part.suptitle(heading, x=0, ha="left", fontsize=11, weight="bold" if rows else "normal", parse_math=False)
        if rows:
            draw_curve(part, rows)
    return page


def _result_pages(metrics: Mapping[str, Any] | None, confusion: np.ndarray | None) -> list[Page]:
    page = Page("Results")
    if metrics is None:
        page.write(MARGIN, TOP, _not_run("evaluate"))
        return [page]
    names, ious = list(metrics["per_class"]), list(metrics["per_class"].values())
    y = _scores(page, TOP + 0.1, metrics)
    protocol = f"Protocol: {metrics['protocol']}. Scored: {metrics['scored']}"
    y = page.write_lines(MARGIN, y + 0.1, page.wrap(protocol.split(), ROOM, 8), 8, color=GREY)
    columns, size, height = _columns(len(names), 4, BOTTOM - y)
    page.charts(MARGIN, y, RIGHT, y + height)
    draw_iou_bars(page.figure, [page.fit(name, NAME, size) for name in names], ious, metrics["miou"], columns, size)
    return [page, _confusion_page(names, confusion)]


def _confusion_page(names: Sequence[str], confusion: np.ndarray | None) -> Page:
    page = Page("Confusion matrix")
    if confusion is None:
        page.write(
            MARGIN, TOP, "evaluate.py ran before it kept the matrix as confusion.csv; run it again to see it here."
        )
        return page
    side = BOTTOM - TOP
    cell = (side - NAME - 0.3) / len(names)
    size = min(8, max(4, 0.7 * POINTS * cell))
    page.charts(MARGIN, TOP - 0.1, MARGIN + side + 1, BOTTOM)
    draw_confusion(page.figure, confusion, [page.fit(name, NAME, size) for name in names], cell)
    left, y = MARGIN + side + 1.3, TOP + 0.1
    page.write(left, y, "Most frequent mistakes", 11, weight="bold")
    room = RIGHT - left - 0.75
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    np.fill_diagonal(shares, 0)
    for place in np.argsort(-shares, axis=None, kind="stable")[:MISTAKES]:
        truth, guess = np.unravel_index(place, shares.shape)
        if not shares[truth, guess]:
            break
        y += 0.27
        pair = " → ".join(page.fit(names[index], room / 2) for index in (truth, guess))
        page.write(left, y, pair)
        page.write(RIGHT, y, f"{shares[truth, guess]:.0%}", ha="right")
    caption = "Share of the pixels of the first class that were predicted as the second.".split()
    page.write_lines(left, y + 0.4, page.wrap(caption, RIGHT - left, 8), 8, color=GREY)
    return page


def _prediction_pages(shown: str, pictures: Path, mious: Mapping[str, float | None]) -> list[Page]:
    """Two pictures a page."""
    chosen = [(kind, name) for kind, names in choose(mious).items() for name in names]
    height = (BOTTOM - TOP - 0.5) / 2
    pages = []
    for start in range(0, len(chosen), 2):
        page = Page("Predictions")
        page.write(MARGIN, TOP - 0.1, page.fit(shown, ROOM, 8), 8, GREY)
        for index, (kind, name) in enumerate(chosen[start : start + 2]):
            top = TOP + 0.15 + index * (height + 0.3)
            page.write(MARGIN, top, KINDS[kind], 10, weight="bold")
            with Image.open(pictures / f"{name}.png") as picture:
                _place(page, picture.convert("RGB"), top + 0.05, height)
        pages.append(page)
    return pages


def _place(page: Page, picture: Image.Image, top: float, height: float) -> None:
    """The picture as large as it fits below `top`."""
    scale = min(ROOM / picture.width, height / picture.height)  # inches a pixel
    width, height = scale * picture.width, scale * picture.height
    left = MARGIN + (ROOM - width) / 2
    axes = page.figure.add_axes((left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT))
    if scale * PICTURE_DPI < 1:
        picture = picture.resize(
            [max(1, round(side * scale * PICTURE_DPI)) for side in picture.size], Image.Resampling.LANCZOS
        )
    axes.imshow(np.asarray(picture), interpolation="none", aspect="auto")
    axes.set_axis_off()


def _origin_page(
    commands: Mapping[str, Sequence[str] | None], versions: Mapping[str, Mapping[str, str] | None]
) -> Page:
    page = Page("Commands and versions")
    y, size = TOP, 8.5
    for step, command in commands.items():
        if command is None:
            lines, look = [f"{step}.py has not been run to its end"], {"color": GREY}
        elif not command:
            lines, look = [f"{step}.py: an earlier version ran, which did not keep its command"], {"color": GREY}
        else:
            lines, look = page.wrap(map(shlex.quote, command), ROOM - 0.3, size, **MONOSPACE), MONOSPACE
            lines[LONGEST:] = ["… the rest is in its config.json"] if len(lines) > LONGEST else []
            lines[:-1] = [f"{line} \\" for line in lines[:-1]]
        y = page.write_lines(MARGIN, y, lines, size, **look) + 0.06
    y += 0.3
    software = list(dict.fromkeys(name for found in versions.values() if found for name in found))
    table = [["", *software]] + [
        [step, *(found.get(name, "") for name in software)] for step, found in versions.items() if found
    ]
    width = ROOM / len(table[0])
    for row, cells in enumerate(table):
        for column, cell in enumerate(cells):
            color = GREY if row == 0 or column == 0 else INK
            page.write(MARGIN + column * width, y, page.fit(cell, width - 0.1, size), size, color)
        y += 0.25
    return page
