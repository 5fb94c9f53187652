"""open_clip's trainer with clipmem's mitigations (reweighting, captions, text noise, removed pairs) and recorder.

    python examples/open_clip_trainer.py [--quick] [--reweight 0.4] [--captions 5] [--std 0.15]
        [--remove RUN --count 50] [--record FILE.npz]

Runs `open_clip_train.main` of the installed release (`pip install '.[bench]'`) with three names replaced:
`create_loss` records each pair's similarity and margin and adds noise to text features, or reweights the pairs;
`CsvDataset` samples one of several captions per row, and `DataInfo` passes on the epoch and the order of the pairs.
Text features are normalized already, so that the noise is `post` or `post-scaled`; it starts after a third of the
steps. Give each process its own seed.
"""

import argparse
import csv
import json
import re
import tempfile
from collections import deque
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import open_clip
import open_clip_train.data
import open_clip_train.main
import torch
from emoji_pairs import emoji
from open_clip_train.data import CsvDataset, DataInfo
from reweighting import Reweighting
from torch import nn

from clipmem import AlignmentRecorder
from clipmem.mitigate import TextEmbeddingNoise, removal_list, sample_captions

SEPARATOR = " || "  # between the captions in a row of the CSV


class Noted:
    """A sampler that keeps the order of an epoch, whatever the number of the loader's workers."""

    order: ClassVar = deque()
    epoch = 0

    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        for index in self.sampler:
            Noted.order.append(index)
            yield index


class NoisyLoss(nn.Module):
    """open_clip's loss with noise on text features."""

    def __init__(self, loss, noise, recorder):
        super().__init__()
        self.loss, self.noise, self.recorder = loss, noise, recorder

    def forward(self, image_features, text_features, *more, **named):
        """Record the step, add the noise and call open_clip's loss."""
        shown = [Noted.order.popleft() for _ in image_features]
        self.recorder.update(shown, image_features, text_features, Noted.epoch)
        return self.loss(image_features, self.noise(text_features), *more, **named)


class ReweightedLoss(nn.Module):
    """`reweighting.Reweighting` in place of open_clip's loss, for a single process."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, image_features, text_features, logit_scale, **_):
        """Return the loss under the name by which open_clip's trainer adds and logs it."""
        index = torch.tensor([Noted.order.popleft() for _ in image_features])
        return {"contrastive_loss": self.loss(index, image_features, text_features, logit_scale, Noted.epoch)}


class SeveralCaptions(CsvDataset):
    """A CSV with several captions per row, one of which is sampled each epoch."""

    epoch = 0

    def __getitem__(self, index):
        """Return the image and one of the row's captions."""
        image, _ = super().__getitem__(index)
        captions = str(self.captions[index]).split(SEPARATOR)
        [caption] = sample_captions([captions], np.array([index], dtype=np.uint64), epoch=self.epoch)
        tokenize: Any = self.tokenize
        return image, tokenize([caption])[0]


class EpochInfo(DataInfo):
    """Passes on the epoch and the order of the pairs, before the loader's workers start."""

    def set_epoch(self, epoch):
        """Set the epoch of the sampler and the data set."""
        super().set_epoch(epoch)
        loader: Any = self.dataloader
        loader.dataset.epoch = Noted.epoch = epoch
        Noted.order, batches = deque(), loader.batch_sampler
        if not isinstance(batches.sampler, Noted):
            batches.sampler = Noted(batches.sampler)


def patch(make_loss):
    """Replace the three names; call before `open_clip_train.main.main`. `make_loss` gets open_clip's loss."""
    create_loss: Any = open_clip.create_loss
    open_clip_train.main.create_loss = lambda args: make_loss(create_loss(args))
    open_clip_train.data.CsvDataset = SeveralCaptions
    open_clip_train.data.DataInfo = EpochInfo


def write_data(folder, pairs, captions):
    """Write image files and open_clip's CSV."""
    table = folder / "train.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["filepath", "title"])
        for pair in pairs:
            file = folder / f"{pair.uid}.png"
            pair.decode().save(file)
            writer.writerow([file, SEPARATOR.join(pair.captions[:captions])])
    return table


def train(*, pairs=512, epochs=10, batch=64, std=0.0, captions=5, leave_out=frozenset(), record="", reweight=0.0):
    """Train, write the record, and return the losses in the trainer's log."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        chosen = emoji(pairs, leave_out=leave_out)
        table, recorder = write_data(folder, chosen, captions), AlignmentRecorder([pair.uid for pair in chosen])
        config = (files("clipmem.models") / "configs" / "clipmem-micro.json").read_text(encoding="utf-8")
        (folder / "clipmem-micro.json").write_text(json.dumps(json.loads(config)))
        open_clip.add_model_config(folder / "clipmem-micro.json")
        if reweight:
            images, texts = [pair.decode() for pair in chosen], [pair.captions[0] for pair in chosen]
            reweighted = Reweighting(images, texts, reweight)
            recorder = reweighted.recorder
            patch(lambda _: ReweightedLoss(reweighted))
        else:
            noise = TextEmbeddingNoise(std, "post", seed=0, steps=epochs * (len(chosen) // batch))
            patch(lambda loss: NoisyLoss(loss, noise, recorder))
        open_clip_train.main.main([
            "--train-data", str(table), "--dataset-type", "csv", "--csv-img-key", "filepath",
            "--csv-caption-key", "title", "--model", "clipmem-micro", "--batch-size", str(batch),
            "--epochs", str(epochs), "--precision", "fp32", "--workers", "0", "--device", "cpu", "--lr", "1e-3",
            "--warmup", "2", "--log-every-n-steps", "1", "--save-frequency", "0", "--logs", place, "--name", "run",
        ])  # fmt: skip
        if record:
            recorder.save(record)
        log = (folder / "run" / "out.log").read_text(encoding="utf-8")
    return [float(found) for found in re.findall(r"Contrastive_loss: ([0-9.]+)", log)]


def main(arguments=None):
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 128 pairs and two epochs (seconds)")
    parser.add_argument("--reweight", type=float, default=0.0, help="share of pairs with a weight below 1; 0 = none")
    parser.add_argument("--std", type=float, default=0.0, help="noise on the text embeddings; 0 = none")
    parser.add_argument("--captions", type=int, default=5, help="captions per pair")
    parser.add_argument("--remove", default="", help="remove the most memorized pairs of this finished clipmem run")
    parser.add_argument("--count", type=int, default=50, help="number of pairs to remove")
    parser.add_argument("--record", default="", help="write each pair's similarity and margin per epoch here (.npz)")
    chosen = parser.parse_args(arguments)
    worst = frozenset(removal_list(chosen.remove, chosen.count)) if chosen.remove else frozenset()
    size = {"pairs": 128, "epochs": 2} if chosen.quick else {}
    losses = train(
        std=chosen.std,
        captions=chosen.captions,
        leave_out=worst,
        record=chosen.record,
        reweight=chosen.reweight,
        **size,
    )
    print(f"{len(losses)} steps; loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    return losses


if __name__ == "__main__":
    main()
