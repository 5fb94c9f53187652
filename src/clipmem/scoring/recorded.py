"""Trajectories read from the files of `clipmem.train.recorder`."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipmem.base.errors import InputError, require, shorten
from clipmem.base.paths import reading
from clipmem.models.signals import Trajectory
from clipmem.train.recorder import TRAJECTORY_FILE

_EXPECTED = "a .npz of similarity, margin and uids"


def read_trajectory(place: Path, uids: Sequence[str]) -> Trajectory:
    """Read what a training recorded of these pairs, in their order.

    Args:
        place: Folder of a model, such as `RunFolder.model_dir(side, seed)`, or a file of `AlignmentRecorder.save`.
        uids: The pairs.

    Raises:
        InputError: There is no record, it is damaged, or the model did not train on one of the pairs.
    """
    file, (*values, ids) = _read(place)
    slots = {one.decode(errors="replace"): slot for slot, one in enumerate(ids.tolist())}
    missing = [uid for uid in uids if uid not in slots]
    got = f"no record of {len(missing)} of {len(uids)} pairs, such as {shorten(missing[0])}" if missing else ""
    hint = "Choose pairs that the model trained on, and record them by uid."
    require(not missing, f"{file}", got, "a record of every pair", hint)
    order = [slots[uid] for uid in uids]
    return Trajectory(values[0][:, order], values[1][:, order])


def recorded_uids(place: Path) -> set[str]:
    """Return the ids of all pairs in a record (see `read_trajectory`)."""
    return {one.decode(errors="replace") for one in _read(place)[1][2].tolist()}


def _read(place: Path) -> tuple[Path, list[np.ndarray]]:
    file = place / TRAJECTORY_FILE if place.is_dir() else place
    hint = "Set train.record = true and train again."
    try:
        with reading(f"{file}", expected=_EXPECTED, hint=hint), file.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)  # pickled objects could run code
            found = [np.asarray(stored[key]) for key in ("similarity", "margin", "uids")]
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}", got="another or a damaged file", expected=_EXPECTED, hint=hint) from error
    *values, ids = found
    got = f"arrays of shapes {', '.join(str(part.shape) for part in found)}"
    whole = all(part.dtype == np.float32 and part.ndim == 2 and part.shape[1:] == ids.shape for part in values)
    require(whole and values[0].shape == values[1].shape and ids.dtype.kind == "S", f"{file}", got, _EXPECTED, hint)
    return file, found
