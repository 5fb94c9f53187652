"""Embedding with the models of a study, whole or a part: what every engine does, wherever it does it."""

from collections.abc import Callable

from clipmem.embed import passes
from clipmem.models.protocol import geometry_of
from clipmem.store import manifest
from clipmem.store.folder import RunFolder
from clipmem.study import execution, materials
from clipmem.study.engine import Task
from clipmem.study.models import open_models


class Embedder:
    """Embeds the pairs of a trained run folder; what all models share is read once.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        known = manifest.read(folder)
        self._folder, self._recipe = folder, folder.recipe()
        self._device = execution.from_manifest(known).device
        self._material = materials.load(folder, self._recipe)
        # given models were compared with the manifest when the study began
        self._models = open_models(self._recipe, folder, known, verify=False)

    def embed(
        self,
        task: Task,
        *,
        part: passes.Part = passes.WHOLE,
        progress: Callable[[int], object] = lambda _: None,
    ) -> passes.Embeddings:
        """Embed all pairs, or a part of them, with one model.

        Args:
            task: The model.
            part: Which part.
            progress: Called with the number of pairs done since the last call.
        """
        encoder = self._models.load(task.side, task.seed)
        return passes.embed(
            encoder,
            materials.pixels(self._folder, geometry_of(encoder), first=self._models.geometries[0]),
            self._material.rows,
            self._material.captions,
            self._material.splits["uid"].to_list(),
            self._recipe.embed,
            self._recipe.train,
            device=self._device,
            part=part,
            progress=progress,
        )
