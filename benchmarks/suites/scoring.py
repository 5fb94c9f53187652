"""Scores of two existing models: blocks and stored embeddings against one pair and view at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from timing import Row, in_turn, seconds
from torch import Tensor
from workload import Workload, emoji

from clipmem.base.machine import cores
from clipmem.base.sections import EmbedSection, TrainSection
from clipmem.data.views import Crops, draw_crops, normalize_pixels, pair_keys, render
from clipmem.functional import alignment
from clipmem.models import passes
from clipmem.models.numerics import threads
from clipmem.models.openclip import OpenClipEncoder, create
from clipmem.scoring.aligning import parts_of

VIEWS = 5


def measure(folder: Path, *, rounds: int, before: str, device: str, smallest: bool) -> list[Row]:  # noqa: ARG001
    """Score with f and g of two sizes; the loop runs on a few pairs."""
    torch.set_flush_denormal(True)
    rows: list[Row] = []
    cases = [("clipmem-tiny", 64, 1900, 60), ("ViT-B-32", 224, 48, 4)]
    for model, size, pairs, looped in [("clipmem-micro", 32, 20, 2)] if smallest else cases:
        data = emoji(folder / f"score-{size}", size=size, pairs=pairs)
        models = [create(model, seed=seed) for seed in (0, 1)]
        external = np.arange(pairs) >= pairs - pairs // 10
        work = _Work(data, models, external, folder, device)
        case = f"{model}, {VIEWS} views"
        rows += [
            in_turn(
                "scoring", f"{case}: embed and score", "loop",
                lambda work=work, pairs=pairs: pairs / seconds(work.first),
                lambda work=work, looped=looped: max(
                    looped / seconds(lambda count=count: work.loop(looped, count)) for count in {1, cores()}
                ),
                unit="pairs/s", rounds=rounds, more_is_better=True,
            ),
            in_turn(
                "scoring", f"{case}: embed and score, in all", "bare",
                lambda work=work: seconds(work.first), lambda work=work: seconds(work.bare),
                unit="s", rounds=rounds, more_is_better=False,
            ),
            in_turn(
                "scoring", f"{case}: again, from the stored embeddings", "before",
                lambda work=work: seconds(work.second), lambda work=work: seconds(work.first),
                unit="s", rounds=rounds, more_is_better=False,
            ),
        ]  # fmt: skip
    return rows


class _Work:
    """The same scores, four ways."""

    def __init__(
        self, data: Workload, models: list[OpenClipEncoder], external: np.ndarray, folder: Path, device: str
    ) -> None:
        self.data, self.models, self.external, self.folder = data, models, external, folder
        self.device = device
        for model in models:
            model.module.to(device).eval()
        self.views = [
            draw_crops(pair_keys(data.uids), seed=view, size=data.size, scale=(0.9, 1.0), ratio=(0.75, 4 / 3), flip=0)
            for view in range(VIEWS)
        ]
        n, width = int(external.sum()), models[0].encode_text(models[0].tokenize(["a"]).to(device)).shape[1]
        # not part of any timing
        self.batches = [self._batch(start) for start in range(0, len(data.uids), 256)]
        # stand-in for the bank's embeddings, which a script computes once for all pairs
        self.banks = [
            tuple(torch.nn.functional.normalize(torch.randn(n, width), dim=-1).to(device) for _ in range(2))
            for _ in models
        ]

    def first(self) -> None:
        """Embed every pair with both models, store the embeddings, and score."""
        settings = EmbedSection.model_validate({"views": VIEWS})
        crops = TrainSection.model_validate({})
        aligned: list[Tensor] = []
        for k, model in enumerate(self.models):
            texts = [[text] for text in self.data.captions]
            inputs = passes.Inputs(self.data.pixels, np.arange(len(texts)), texts, self.data.uids)
            made = passes.embed(model, inputs, settings, crops, device=self.device)
            passes.save(made, self.folder / f"embeddings-{self.data.size}-{k}")
            aligned.append(alignment(parts_of(made, self.external)))
        assert torch.isfinite(aligned[0] - aligned[1]).all()  # noqa: S101

    def second(self) -> None:
        """Score from the stored embeddings."""
        stored = [passes.load(self.folder / f"embeddings-{self.data.size}-{k}") for k in range(2)]
        f, g = (alignment(parts_of(one, self.external)) for one in stored)
        assert torch.isfinite(f - g).all()  # noqa: S101

    def bare(self) -> None:
        """Run only the forward passes of both models on batches in memory."""
        with torch.inference_mode():
            for model in self.models:
                for views, tokens in self.batches:
                    for view in views:
                        model.encode_image(view)
                    model.encode_text(tokens)
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _batch(self, start: int) -> tuple[list[Tensor], Tensor]:
        rows = np.arange(start, min(start + 256, len(self.data.uids)))
        encoder = self.models[0]
        pixels = torch.from_numpy(self.data.pixels[rows])
        views = [
            normalize_pixels(
                render(pixels, Crops(*(drawn[rows] for drawn in view)), size=encoder.image_size),
                encoder.mean,
                encoder.std,
            )
            for view in self.views
        ]
        tokens = encoder.tokenize([self.data.captions[k] for k in rows])
        return [view.to(self.device) for view in views], tokens.to(self.device)

    def loop(self, pairs: int, count: int) -> None:
        """Score like a typical script: batch size 1, open_clip's public calls, a precomputed bank."""
        with threads(count):
            self._loop(pairs)

    def _loop(self, pairs: int) -> None:
        transform: Any = open_clip.image_transform(self.data.size, is_train=True, aug_cfg={"scale": (0.9, 1.0)})
        length: Any = self.models[0].module.context_length
        tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=length)
        with torch.no_grad():
            for k in range(pairs):
                for model, (images, texts) in zip(self.models, self.banks, strict=True):
                    _score_one(model.module, Image.fromarray(self.data.pixels[k]), self.data.captions[k], transform,
                               tokenizer, images, texts)  # fmt: skip


def _score_one(
    model: torch.nn.Module,
    photo: Image.Image,
    caption: str,
    transform: Callable[[Image.Image], Tensor],
    tokenizer: Callable[[list[str]], Tensor],
    images: Tensor,
    texts: Tensor,
) -> float:
    device = images.device
    text = model.encode_text(tokenizer([caption]).to(device), normalize=True)  # pyright: ignore[reportCallIssue]
    total = 0.0
    for _ in range(VIEWS):
        image = model.encode_image(transform(photo).unsqueeze(0).to(device), normalize=True)  # pyright: ignore[reportCallIssue]
        total += float((image @ text.T).item() - (image @ texts.T).mean().item())
    return total / VIEWS - float((images @ text.T).mean().item())
