"""Disks, consoles, memory and worker processes as they are elsewhere; files that were damaged."""

import copy
import errno
import io
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from PIL import Image

from data import UserError
from data.features import create_rows
from data.image_files import read_image
from models.checkpoint import load_segmenter
from models.run import chain, folder, runtime
from models.run.record import read_run
from tests.conftest import DATA, HOME
from tests.models.conftest import noise

LAST = "run/3_seg/last.pt"
STEP_1 = ("sample_features.py", "--run", "new", *DATA, "--backbone", "squeezenet1_1")
STEP_1 += ("--weights", "random", "--size", 48)
TRAIN = ("train_seg.py", "--run", "run", *DATA, "--epochs", 2, "--batch-size", 4)


@pytest.mark.parametrize(
    "error, code, words",
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 2, "lower --size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 2, "out of memory (CUDA out of"),
        (MemoryError(), 2, "out of memory (no more is known)"),
        (np._core._exceptions._ArrayMemoryError((9,), np.dtype("u1")), 2, "out of memory (Unable"),
        (RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed."), 2, "--workers 0"),
        (RuntimeError("DataLoader timed out after 300 seconds"), 2, "/dev/shm full? use --workers"),
        (
            OSError("Caught OSError\nTraceback\nOSError: [Errno 24] Too many"),
            2,
            ": OSError: [Errno",
        ),
    ],
)
def test_what_a_machine_lacks_is_one_line(error, code, words, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        runtime.run_script(main)
    said = capsys.readouterr().err
    assert stop.value.code == code and words in said and said.count("\n") == 1


def test_workers_share_no_more_memory_than_there_is(street, succeeds, monkeypatch):
    usage = shutil._ntuple_diskusage(2**30, 0, runtime.SHARED_PER_WORKER - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    if runtime.SHARED.is_dir():
        said = succeeds(*STEP_1, "--workers", 2)
        assert "note: 0 of 2 workers, as /dev/shm is nearly full" in said


def test_a_small_shared_memory_hangs_nothing(street):
    small = ("unshare", "-Urm", "sh", "-c")
    small += ('mount -t tmpfs -o size=400k tmpfs /dev/shm && exec "$@"', "sh")
    if not shutil.which("unshare") or subprocess.run([*small, "true"]).returncode:
        pytest.skip("no small /dev/shm can be mounted here")
    command = [sys.executable, HOME / STEP_1[0], *map(str, STEP_1[1:]), "--workers", "1"]
    subprocess.run([*small, *command], check=True, timeout=200, capture_output=True)
    assert Path("new/1_features/config.json").is_file()


def test_a_console_may_lack_letters(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    runtime.run_script(lambda: print("a 猫", flush=True))
    assert console.buffer.getvalue().rstrip() == b"a ?"


@pytest.mark.parametrize(
    "error", [OSError(errno.EROFS, "Read-only file system"), NotImplementedError("no flock")]
)
def test_where_nothing_can_be_locked_a_folder_of_ones_own_is_named(error, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    line = "4_eval: cannot be written .* with --run or --out$"
    with pytest.raises(UserError, match=line), folder.claim(tmp_path / "run" / "4_eval"):
        pass


def test_a_disk_without_mappings_is_named(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    with pytest.raises(UserError, match="features.npy: cannot be mapped on this disk; use a --run"):
        create_rows(tmp_path, 3, 4)


def test_what_the_system_refuses_is_no_damage_of_a_photo(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
        patch.setattr(Image, "open", _refusing(OSError(errno.EMFILE, "Too many open files")))
        read_image(tmp_path / "a.png")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="is the file damaged"):
        patch.setattr(Image, "open", _refusing(OSError("truncated")))
        read_image(tmp_path / "a.png")


def _refusing(error: Exception):
    def refuse(*arguments, **options):
        raise error

    return refuse


def test_resume_wants_the_best_network_and_the_masks_it_learned(street, fails):
    best, mask = Path("run/3_seg/best.pt"), next(Path("shapes/SegmentationClass").glob("*.png"))
    before = mask.read_bytes()
    Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    assert f"{LAST} was made with " in (line := fails(*TRAIN, "--resume")) and "images" in line
    mask.write_bytes(before)
    best.unlink()
    assert "run/3_seg/best.pt: no such checkpoint file" in fails(*TRAIN, "--resume")


def test_a_damaged_record_of_a_run_is_named(street):
    run = Path("run")
    segmenter, _ = chain.trained_segmenter(run, None)
    names = ("2_cls/log.csv", "4_eval/metrics.json", "4_eval/confusion.csv")
    for name in names:
        whole = (run / name).read_bytes()
        for part in (b"", whole[: len(whole) // 2].replace(b"0", b"?")):
            (run / name).write_bytes(part)
            with pytest.raises(UserError, match=f"^run/{name}: cannot be read"):
                read_run(run, segmenter)
        (run / name).write_bytes(whole)


def test_a_checkpoint_whose_description_was_changed_is_refused_or_the_same(street):
    path, image = Path("run/2_cls/dense.pt"), noise(48, 60)
    content = torch.load(path, weights_only=True)
    expected, refused = load_segmenter(path)[0].eval()(image), 0
    described = [(name,) for name in content if name not in ("state", "kind")]
    described += [(part, name) for part in ("hypercolumn", "head") for name in content[part]]
    described.remove(("hypercolumn", "dilated"))  # another number is another network, too
    for *parts, name in described:
        for change in (None, [], "x", -1, 10**9, "left out"):
            changed = copy.deepcopy(content)
            place = changed[parts[0]] if parts else changed
            place[name] = change
            if change == "left out":
                del place[name]
            torch.save(changed, path)
            try:
                found = load_segmenter(path)[0].eval()(image)
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
            else:
                assert torch.equal(found, expected), (name, change)
    assert refused > 50
