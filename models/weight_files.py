"""Weights on disk: read without running code, and identified."""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data import UserError

WRAPPERS = ("state_dict", "model", "model_state", "params")  # keys of training checkpoints


def load_tensors(path: Path, what: str) -> Any:
    """What `torch.save` wrote, onto the CPU; `what` the file should be is for the messages.

    Raises:
        UserError: the file is missing, damaged, or holds pickled code.
        OSError: the system cannot read it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such {what} file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a {what} file, nor that of a run") from None
    except OSError:
        raise
    except Exception as error:  # a damaged file lets torch raise nearly anything
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise UserError(
            f"{path}: cannot be read as a {what} file of plain tensors and values ({reason}); is "
            "it damaged? if it needs code to be run, it is not loaded"
        ) from None


def read_state(path: str) -> dict[str, Tensor]:
    """The state dict in a file, bare or in a training checkpoint, without prefixes of wrappers.

    Raises:
        UserError: see `load_tensors`; or there is no state dict in it.
    """
    state = load_tensors(Path(path), "weights")
    if isinstance(state, dict):
        state = next((state[name] for name in WRAPPERS if name in state), state)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: not a state dict (names to tensors)")
    return {re.sub(r"^((module|model|backbone)\.)+", "", k): v for k, v in state.items()}


def load_state(
    network: nn.Module, state: dict[str, Tensor], source: str | Path, backbone: str, **how: bool
) -> None:
    """Loads all weights of a network; `how` as for `load_state_dict`.

    Raises:
        UserError: they do not fit, as where another version named the layers otherwise.
    """
    try:
        network.load_state_dict(state, **how)
    except RuntimeError as error:  # torch's second line names the first missing or odd tensor
        reason = str(error).splitlines()[1].strip()[:100]
        raise UserError(
            f"{source}: its weights do not fit {backbone} ({reason}); are they of another version, "
            "or of another backbone?"
        ) from None


def fingerprint(network: nn.Module) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all weights: identifies a network."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
