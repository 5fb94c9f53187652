"""Embedding with one model of a study, whole or a part: what every engine does, wherever it does it."""

from collections.abc import Callable

from clipmem.embed import passes
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import execution, materials
from clipmem.study.engine import Task
from clipmem.study.models import open_models


def embed_model(
    folder: RunFolder,
    task: Task,
    *,
    part: passes.Part = passes.WHOLE,
    progress: Callable[[int], object] = lambda _: None,
) -> passes.Embeddings:
    """Embed all pairs of a trained run folder, or a part of them, with one model.

    Args:
        folder: The run folder.
        task: The model.
        part: Which part.
        progress: Called with the number of pairs done since the last call.
    """
    recipe, known = folder.recipe(), manifest.read(folder)
    material = materials.load(folder, recipe)
    # given models were compared with the manifest when the study began
    encoder = open_models(recipe, folder, known, verify=False).load(task.side, task.seed)
    return passes.embed(
        encoder,
        materials.pixels(folder, encoder.image_size),
        material.rows,
        material.captions,
        material.splits["uid"].to_list(),
        recipe.embed,
        recipe.train,
        device=execution.from_manifest(known).device,
        part=part,
        progress=progress,
    )
