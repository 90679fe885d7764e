"""The write-up of a run, as pages and as text, from plain values: procedure, data, results."""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from data.figures import charts
from data.figures.architecture import draw_architecture
from data.figures.charts import GREY, INK, short

TITLE = "Semantic segmentation with hypercolumns"
A4 = 11.69, 8.27  # inches, landscape
SCRIPTS = {1: "sample_features", 2: "train_cls", 3: "train_seg", 4: "evaluate"}
# Of config.json beside the settings; scores of log.csv that tell training and validation apart.
FACTS = ("images", "rows", "held_out_rows", "steps", "parameters", "best_epoch")
FACTS += ("val_images_trained_on",)
LOGGED = {"loss": "training loss", "val_loss": "val loss", "accuracy": "training accuracy"}
LOGGED |= {"val_accuracy": "val accuracy", "miou": "val mIoU", "pixel_accuracy": "val accuracy"}
SCORES = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
SCORES |= {"mean_accuracy": "mean accuracy", "fw_iou": "fw-IoU"}
NAMED = 3  # of the best classes, the worst and so on
LINE = 140  # letters of a line of text across the page
PICTURE = 2200  # pixels of the longer side of a picture, at most


def report_pages(
    record: Mapping[str, Any], shown: str, pictures: Sequence[tuple[str, Image.Image]]
) -> list[Figure]:
    """The pages of the write-up, A4 landscape.

    What a step has not left, since it was not run to its end, has no page.

    Args:
        record: see `models.run.record.read_run`; also "author", or None, and what
            `losses.compare.compare_runs` gives, "compared" and "experiments", or none.
        shown: which pictures have been drawn, in words.
        pictures: what each is an example of, and the picture.
    """
    pages: list[Figure] = []

    def page(title: str) -> Figure:
        pages.append(charts.new_figure(*A4))
        pages[-1].get_layout_engine().set(w_pad=0.25, h_pad=0.15)
        pages[-1].suptitle(title, x=0.02, ha="left", fontsize=18, weight="bold", color=INK)
        return pages[-1]

    wrap = textwrap.TextWrapper(LINE, break_on_hyphens=False, max_lines=8, placeholder=" …")
    texts = {heading: wrap.wrap(text) for heading, text in sections(record).items()}
    heights = [3 + len(lines) for lines in texts.values()]
    places = page(TITLE).subplots(len(texts), 1, height_ratios=heights)
    for axes, (heading, lines) in zip(places, texts.items()):
        _text(axes, heading, lines)
    tables = procedure(record)
    places = page("Training procedure").subplots(1, len(tables))
    for axes, (heading, rows) in zip(places, tables.items()):
        lines = [f"{short(name, 21):21} {short(value)}" for name, value in rows.items()]
        _text(axes, heading, lines, family="monospace", fontsize=7.5)
    draw_architecture(page("Architecture").subplots(), record["network"])
    if config := record["configs"][1]:
        counts = config["rows_per_class"]
        whole = page(f"Sampled pixels: {sum(counts):,} in all").subfigures()
        charts.class_counts(config["classes"], counts, whole)
    if logs := record["logs"]:
        parts = page("Training").subfigures(len(logs), 1, squeeze=False)[:, 0]
        for part, (step, rows) in zip(parts, logs.items()):
            charts.curve(rows, SCRIPTS[step], part)
    if metrics := record["metrics"]:
        names, ious = zip(*metrics["per_class"].items())
        charts.iou_bars(names, ious, metrics["miou"], page("Results").subfigures())
        charts.confusion(record["confusion"], names, page("Confusion matrix").subfigures())
    if record["experiments"]:
        charts.comparison(record["experiments"], page("Experiments").subfigures())
    for first in range(0, len(pictures), 2):
        _show(page(f"Predictions: {short(shown, 60)}"), pictures[first : first + 2])
    for number, figure in enumerate(pages, start=1):
        words = f"{short(record['run'], 90)} · page {number} of {len(pages)}"
        figure.supxlabel(words, x=0.98, ha="right", fontsize=8, color=GREY, parse_math=False)
    return pages


def _show(page: Figure, pictures: Sequence[tuple[str, Image.Image]]) -> None:
    """One picture or two, below each other."""
    for axes in (places := page.subplots(2, 1)):
        axes.axis("off")
    for axes, (kind, picture) in zip(places, pictures):
        pixels = picture.convert("RGB")
        pixels.thumbnail((PICTURE, PICTURE), Image.LANCZOS)
        axes.imshow(pixels, interpolation="none")
        axes.set_anchor("NW")
        axes.set_title(kind, loc="left", fontsize=10, weight="bold")


def _text(axes: Axes, heading: str, lines: Sequence[str], **look: Any) -> None:
    """Lines below a heading."""
    axes.axis("off")
    axes.set_title(heading, loc="left", fontsize=11, weight="bold", parse_math=False)
    look = {"fontsize": 10, "color": INK, "va": "top", "parse_math": False, **look}
    axes.text(0, 1, "\n".join(lines), transform=axes.transAxes, **look).set_in_layout(False)


def save_report(
    folder: Path, record: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]], shown: str
) -> None:
    """Writes report.pdf and report.md, with some of the pictures of `gallery.read_pictures`."""
    chosen = choose(pictures)
    images = [(kind, Image.open(folder / f"{name}.png")) for kind, name in chosen]
    about = {"Title": TITLE, "Author": record["author"], "CreationDate": None}
    with PdfPages(folder / "report.pdf", metadata=about) as document:
        for page in report_pages(record, shown, images):
            document.savefig(page)
    text = report_text(record, [(kind, f"{name}.png") for kind, name in chosen])
    (folder / "report.md").write_text(text, encoding="utf-8")


def report_text(record: Mapping[str, Any], pictures: Sequence[tuple[str, str]]) -> str:
    """The write-up as markdown, to be edited; as `report_pages`, with the files of the pictures."""
    parts, tables = [f"# {TITLE}"], procedure(record)
    for heading, text in sections(record).items():
        parts += [f"## {heading}", text]
    if record["metrics"]:
        ious = record["metrics"]["per_class"].items()
        cells = {name: "absent" if iou is None else f"{iou:.3f}" for name, iou in ious}
        tables = {"IoU of the classes": cells, **tables}
    for heading, rows in tables.items():
        lines = [f"| {name} | {value} |" for name, value in rows.items()]
        parts += [f"## {heading}", "\n".join(["| | |", "|---|---|", *lines])]
    if record["experiments"]:
        parts += ["## Experiments", record["compared"]]
    parts += [f"{kind}\n\n![{kind}](<{file}>)" for kind, file in pictures]
    return "\n\n".join(parts) + "\n"


def sections(record: Mapping[str, Any]) -> dict[str, str]:
    """The text of page 1, by its headings: who, scores and how they are meant, what they say."""
    metrics, author = record["metrics"], [record["author"]] if record["author"] else []
    texts = {" · ".join([*author, str(date.today())]): record["run"]}
    if metrics:
        scores = ", ".join(f"{label} {metrics[key]:.3f}" for key, label in SCORES.items())
        old = "These scores are of another network: run evaluate.py again. "
        texts["Scores"] = old * record["scores_are_old"] + scores
        texts["Protocol"] = metrics["protocol"]
        texts["Discussion"] = discussion(record)
    numbers = record["versions"].items()
    return texts | {"Versions": ", ".join(f"{name} {number}" for name, number in numbers)}


def procedure(record: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """A table for each step, by its heading: all that decided its result, and what came of it.

    Of a step that has not made the network, or not left a record, there is none.
    """
    tables: dict[str, dict[str, str]] = {}
    for step, script in SCRIPTS.items():
        heading, config = f"{step}  {script}.py", record["configs"][step]
        if config is None:
            tables[heading] = {"no record": "in this run"}
            continue
        settings = config["settings"].items()
        known = {"data": config["data"]}
        known |= {flag.strip("-"): value for flag, value in settings if value is not None}
        if step in (2, 3):
            known["loss"] = "cross entropy" + " + Lovasz" * bool(known.get("lovasz"))
        known |= {name: config[name] for name in FACTS if name in config}
        rows = record["logs"].get(step) or [{}]
        last = next((row for row in rows if row.get("epoch") == config.get("best_epoch")), rows[-1])
        scores = {name: last[name] for name in LOGGED if last.get(name) is not None}
        known |= {LOGGED[name]: x for name, x in scores.items() if math.isfinite(x)}
        known["time (h:mm:ss)"] = timedelta(seconds=round(config["seconds"]))
        tables[heading] = {re.sub("[-_]", " ", name): _words(x) for name, x in known.items()}
    return tables


def discussion(record: Mapping[str, Any]) -> str:
    """What the scores of step 4 say: the best and the worst classes, confusions, images."""
    counts, ious = record["confusion"], record["metrics"]["per_class"]
    names, known = list(ious), {name: iou for name, iou in ious.items() if iou is not None}
    ranked = [f"{name} ({known[name]:.3f})" for name in sorted(known, key=lambda n: -known[n])]
    some = max(1, min(NAMED, len(ranked) // 2))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    frequent = zip(*np.unravel_index(np.argsort(-wrong, axis=None)[:NAMED], wrong.shape))
    images = [image for image in record["images"] if not math.isnan(image["miou"])]
    images.sort(key=lambda image: image["miou"])
    half = sum(image["miou"] < 0.5 for image in images)
    sentences = {
        "The best classes, by IoU, are": ranked[:some],
        "The worst are": ranked[::-1][:some],
        "The most frequent confusions, by pixels, are": [
            f"{names[truth]} taken for {names[seen]} ({shares[truth, seen]:.0%} of it)"
            for truth, seen in frequent
            if wrong[truth, seen]
        ],
        f"Of {len(images)} images {half} have an mIoU, over the classes of their ground truth, "
        "below 0.5; the worst are, with the class that is worst in them,": [
            f"{one['id']} ({one['miou']:.3f}, {one['worst_class']})" for one in images[:NAMED]
        ],
    }
    return " ".join(f"{start} {', '.join(named)}." for start, named in sentences.items() if named)


def choose(pictures: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The pictures worth showing: the place of each by its score, and its name.

    Two of the best, around the median and of the worst, or all that have a score.

    Args:
        pictures: "name" and "miou" of each, the worst first; None where nothing in it is scored.
    """
    ranked = [picture["name"] for picture in pictures if picture["miou"] is not None][::-1]
    count = len(ranked)
    places = {0, 1, count // 2 - 1, count // 2, count - 2, count - 1} & {*range(count)}
    return [(f"number {i + 1} of {count}, by mIoU", ranked[i]) for i in sorted(places)]


def _words(value: Any) -> str:
    """A setting or a score as it is read."""
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return format(value, {int: ",", float: ".4g"}.get(type(value), ""))
