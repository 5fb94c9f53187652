"""open_clip's trainer with clipmem: memorization per epoch, reweighting, captions, text noise, removed pairs, a record.

    python examples/open_clip_trainer.py [--quick] [--reweight 0.4] [--average 0.9] [--captions 5] [--std 0.15]
        [--remove RUN --count 50] [--record FILE.npz]

Runs `open_clip_train.main` of the installed release (`pip install '.[bench]'`) with its `train_one_epoch` wrapped: one
wrapper measures memorization, the other reweights or records the pairs. For the other mitigations, three names are
replaced: `create_loss` adds noise to text features, `CsvDataset` samples one of several captions per row, and
`DataInfo` passes on the epoch. Text features are normalized already, so that the noise is `post` or `post-scaled`; it
starts after a third of the steps. Give each process its own seed.
"""

import argparse
import csv
import json
import re
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import open_clip_train.data
import open_clip_train.main
from averaging import average, distance
from emoji_pairs import emoji
from open_clip_train.data import CsvDataset, DataInfo
from open_clip_train.train import train_one_epoch
from torch import nn

from clipmem.integrations.open_clip import MemorizationCallback, ReweightCallback
from clipmem.mitigate import TextEmbeddingNoise, removal_list, sample_captions

SEPARATOR = " || "  # between the captions in a row of the CSV


class NoisyLoss(nn.Module):
    """open_clip's loss with noise on text features."""

    def __init__(self, loss, noise):
        super().__init__()
        self.loss, self.noise = loss, noise

    def forward(self, image_features, text_features, *more, **named):
        """Add the noise and call open_clip's loss."""
        return self.loss(image_features, self.noise(text_features), *more, **named)


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
    """Passes on the epoch, before the loader's workers start."""

    def set_epoch(self, epoch):
        """Set the epoch of the sampler and the data set."""
        super().set_epoch(epoch)
        loader: Any = self.dataloader
        loader.dataset.epoch = epoch


def write_data(folder, pairs, captions, name="train"):
    """Write image files and open_clip's CSV."""
    table = folder / f"{name}.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["filepath", "title"])
        for pair in pairs:
            file = folder / f"{pair.uid}.png"
            pair.decode().save(file)
            writer.writerow([file, SEPARATOR.join(pair.captions[:captions])])
    return table


class Averaged:
    """A `train_one_epoch` that also averages the weights over the steps."""

    def __init__(self, train_one_epoch, decay):
        self.train_one_epoch, self.decay, self.model, self.distance = train_one_epoch, decay, None, 0.0

    def __call__(self, model, data, loss, epoch, optimizer, *others, **named):
        """Train an epoch; `model` is then the model with averaged weights."""
        self.model = self.model or average(model, optimizer, self.decay)
        self.train_one_epoch(model, data, loss, epoch, optimizer, *others, **named)
        self.distance = distance(self.model, model)


def train(
    *, pairs=512, epochs=10, batch=64, std=0.0, captions=5, leave_out=frozenset(), record="", reweight=0.0, decay=None
):
    """Train, write the record, and return the losses in the trainer's log."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        chosen = emoji(pairs + 64, leave_out=leave_out)
        chosen, held_out = chosen[:pairs], write_data(folder, chosen[pairs:], 1, "held_out")
        table = write_data(folder, chosen, captions)
        config = (files("clipmem.models") / "configs" / "clipmem-micro.json").read_text(encoding="utf-8")
        (folder / "clipmem-micro.json").write_text(json.dumps(json.loads(config)))
        open_clip.add_model_config(folder / "clipmem-micro.json")
        noise = TextEmbeddingNoise(std, "post", seed=0, steps=epochs * (len(chosen) // batch))
        create_loss: Any = open_clip.create_loss
        open_clip_train.main.create_loss = lambda args: NoisyLoss(create_loss(args), noise)
        open_clip_train.data.CsvDataset = SeveralCaptions
        open_clip_train.data.DataInfo = EpochInfo
        texts, uids = [pair.captions[:captions] for pair in chosen], [pair.uid for pair in chosen]
        weighted = ReweightCallback(reweight, captions=texts, ids=uids)
        monitor = MemorizationCallback(pairs=64, budget=1.0)
        averaged = Averaged(train_one_epoch, decay)
        open_clip_train.main.train_one_epoch = monitor(weighted(train_one_epoch if decay is None else averaged))
        open_clip_train.main.main([
            "--train-data", str(table), "--val-data", str(held_out), "--val-frequency", "0", "--dataset-type", "csv",
            "--csv-img-key", "filepath", "--csv-caption-key", "title", "--model", "clipmem-micro", "--name", "run",
            "--batch-size", str(batch), "--epochs", str(epochs), "--precision", "fp32", "--workers", "0",
            "--warmup", "2", "--device", "cpu", "--lr", "1e-3", "--log-every-n-steps", "1", "--save-frequency", "0",
            "--logs", place,
        ])  # fmt: skip
        if decay is not None:
            print(f"the average is {averaged.distance:.4f} from the last weights")
        if record:
            weighted.loss.recorder.save(record)
        log = (folder / "run" / "out.log").read_text(encoding="utf-8")
    return [float(found) for found in re.findall(r"Contrastive_loss: ([0-9.]+)", log)]


def main(arguments=None):
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 128 pairs and two epochs (seconds)")
    parser.add_argument("--reweight", type=float, default=0.0, help="share of pairs with a weight below 1; 0 = none")
    parser.add_argument("--average", type=float, help="decay of an average of the weights over the steps")
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
        decay=chosen.average,
        **size,
    )
    print(f"{len(losses)} steps; loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    return losses


if __name__ == "__main__":
    main()
