"""Do the callbacks for other trainers gain what `mitigate.reweight` gains, and what does watching a training cost?

    python experiments/mitigate/callbacks.py --out runs/callbacks                # all, paired seeds: resumes
    python experiments/mitigate/callbacks.py --out runs/callbacks --record       # callbacks.json, and the table of
                                                                                 # experiments/mitigate/RESULTS.md
    python experiments/mitigate/callbacks.py --out runs/quick --quick            # a few pairs: runs, measures nothing

A fifth of the captions of 2,000 drawings is swapped, and `clipmem-tiny` trains on them for 12 epochs, with and without
reweighting at a share of .4: by clipmem's own training, and by transformers, Lightning and open_clip, each of which
shuffles and crops in its own way. The gain is R@5 on 900 held-out pairs with their own captions with reweighting,
minus without. Under a seed, all have the same swapped captions, and both trainings of a trainer the same initial
weights. The primary effect is the gain of a trainer minus that of clipmem's own training, over six seeds.

`MemorizationCallback` watches each of these trainings with its default settings. Its cost is the time that it takes,
as a share of all the time of a training.
"""

import argparse
import csv
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parents[1] / "curate"))
import acting

from clipmem.base.paths import write_json
from clipmem.integrations.monitor import Monitor
from clipmem.models import openclip
from clipmem.stats.comparisons import paired_test

FULL, QUICK = {"pairs": 2000, "test": 900, "epochs": 12}, {"pairs": 256, "test": 150, "epochs": 2}
SEEDS, RATE, MODEL, BATCH = 6, 0.2, "clipmem-tiny", 128
OWN, ARMS = "clipmem", ("plain", "reweight")
ROOT = Path(__file__).parents[2]
RECORD, PAGE = Path(__file__).with_suffix(".json"), Path(__file__).with_name("RESULTS.md")
_LR, _DECAY, _BETAS, _EPS, _WARMUP = 1e-3, 0.2, (0.9, 0.98), 1e-6, 0.1  # those of `[train]`


class Pairs(Dataset[dict[str, Any]]):
    """Pairs as tensors, with the index of each; images in training get the random crop of `[train]`."""

    def __init__(
        self, data: acting.Data, encoder: Any, rows: pl.DataFrame, captions: Sequence[str], crop: bool
    ) -> None:
        size = encoder.image_size
        cut = [v2.RandomResizedCrop(size, scale=(0.9, 1.0), antialias=True)] if crop else []
        self._change = v2.Compose(
            [*cut, v2.ToDtype(torch.float32, scale=True), v2.Normalize(encoder.mean, encoder.std)]
        )
        self._pixels = torch.from_numpy(data.pixels[rows["row"].to_numpy()]).permute(0, 3, 1, 2)
        self._tokens = encoder.tokenize(captions)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, k: int) -> dict[str, Any]:
        return {"pixel_values": self._change(self._pixels[k]), "input_ids": self._tokens[k], "index": k}


class Clip(nn.Module):
    """A CLIP model as transformers' Trainer expects one."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.clip, self._encoder = encoder.module, [encoder]  # in a list: no part of the weights

    @property
    def logit_scale(self) -> Any:
        """The logarithm of the factor of similarities."""
        return self.clip.logit_scale

    def embed(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> list[torch.Tensor]:
        """Return unit embeddings."""
        encoder = self._encoder[0]
        sides = encoder.encode_image(pixel_values), encoder.encode_text(input_ids)
        return [nn.functional.normalize(side, dim=-1) for side in sides]

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, **_: Any) -> Any:
        """Return the embeddings and CLIP's loss."""
        from transformers.models.clip.modeling_clip import CLIPOutput

        image, text = self.embed(pixel_values, input_ids)
        loss: Any = openclip.contrastive_loss(image, text, self.logit_scale.exp())
        return CLIPOutput(loss=loss, image_embeds=image, text_embeds=text)


class Job:
    """One training: its pairs, and callbacks that watch and, in one of both, reweight it."""

    def __init__(self, data: acting.Data, captions: list[str], seed: int, share: float, folder: Path) -> None:
        self.data, self.seed, self.share, self.folder, self.captions = data, seed, share, folder, captions
        self.epochs, self.uids = data.recipe.train.epochs, data.train["uid"].to_list()
        self.encoder = openclip.create(MODEL, seed=seed)
        self.train = Pairs(data, self.encoder, data.train, captions, crop=True)
        self.held_out = Pairs(data, self.encoder, data.test, data.test["caption"].to_list(), crop=False)
        self.images = [Image.fromarray(data.pixels[row]) for row in data.train["row"]]
        torch.manual_seed(seed)

    @property
    def warmup(self) -> int:
        """Steps of warmup."""
        return round(_WARMUP * self.epochs * (len(self.train) // BATCH))

    @property
    def pairs(self) -> tuple[Any, ...]:
        """The first arguments of a reweighting callback."""
        return self.images, self.captions, self.share, self.uids


def by_transformers(job: Job) -> Monitor:
    """Train by transformers' Trainer."""
    from transformers import Trainer, TrainingArguments

    from clipmem.integrations.transformers import MemorizationCallback, ReweightCallback

    settings = TrainingArguments(
        str(job.folder), per_device_train_batch_size=BATCH, num_train_epochs=job.epochs, learning_rate=_LR,
        seed=job.seed, weight_decay=_DECAY, adam_beta2=_BETAS[1], adam_epsilon=_EPS, lr_scheduler_type="cosine",
        warmup_steps=job.warmup, max_grad_norm=1.0, save_strategy="no", logging_strategy="no", report_to=[],
        use_cpu=True, disable_tqdm=True, remove_unused_columns=False, dataloader_drop_last=True,
    )  # fmt: skip
    trainer: Any = Trainer(Clip(job.encoder), settings, train_dataset=job.train)
    watching = MemorizationCallback(trainer, job.held_out)
    trainer.add_callback(watching)
    if job.share:
        trainer.add_callback(ReweightCallback(*job.pairs))
    trainer.train()
    return watching.monitor


def by_lightning(job: Job) -> Monitor:
    """Train by Lightning's Trainer."""
    import lightning.pytorch as lightning

    from clipmem.integrations.lightning import MemorizationCallback, ReweightCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Clip(job.encoder)

        def embed(self, batch: Any) -> list[torch.Tensor]:
            return self.model.embed(batch["pixel_values"], batch["input_ids"])

        def training_step(self, batch: Any, _: int) -> Any:
            image, text = self.embed(batch)
            return openclip.contrastive_loss(image, text, self.model.logit_scale.exp())

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), _LR, _BETAS, _EPS, _DECAY)
            steps = self.trainer.estimated_stepping_batches

            def factor(step: int) -> float:
                return min((step + 1) / max(1, job.warmup), (1 + math.cos(math.pi * step / steps)) / 2)

            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def embed(module: Any, batch: Any) -> list[torch.Tensor]:
        return module.embed(batch)

    watching = MemorizationCallback(DataLoader(job.held_out, BATCH), embed=embed)
    weighting = [ReweightCallback(*job.pairs, embed=embed, scale=lambda module: module.model.logit_scale.exp())]
    trainer = lightning.Trainer(
        max_epochs=job.epochs, callbacks=[watching, *weighting * bool(job.share)], accelerator="cpu", logger=False,
        gradient_clip_val=1.0, default_root_dir=job.folder, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(job.train, BATCH, shuffle=True, drop_last=True))
    return watching.monitor


def by_open_clip(job: Job) -> Monitor:
    """Train by open_clip's trainer, from image files."""
    import open_clip
    import open_clip_train.main as trainer
    from open_clip_train.train import train_one_epoch

    from clipmem.integrations.open_clip import MemorizationCallback, ReweightCallback

    tables = []
    for name, rows, captions in (
        ("train", job.data.train, job.captions),
        ("held_out", job.data.test, job.data.test["caption"]),
    ):
        tables.append(job.folder / f"{name}.csv")
        with tables[-1].open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter="\t")
            writer.writerow(["filepath", "title"])
            for row, caption in zip(rows["row"], captions, strict=True):
                file = job.folder / f"{row}.png"
                Image.fromarray(job.data.pixels[row]).save(file)
                writer.writerow([file, caption])
    config = job.folder / f"{MODEL}.json"
    config.write_text((files("clipmem.models") / "configs" / config.name).read_text(encoding="utf-8"))
    open_clip.add_model_config(config)
    watching = MemorizationCallback()
    step: Any = train_one_epoch
    weighted = ReweightCallback(job.share, job.images, job.captions, job.uids)(step) if job.share else step
    trained: Any = None

    def last(model: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal trained
        trained = model
        return weighted(model, *arguments, **named)

    trainer.train_one_epoch = watching(last)
    trainer.main([
        "--train-data", str(tables[0]), "--val-data", str(tables[1]), "--val-frequency", "0", "--dataset-type", "csv",
        "--csv-img-key", "filepath", "--csv-caption-key", "title", "--model", MODEL, "--name", "run", "--workers", "0",
        "--batch-size", str(BATCH), "--epochs", str(job.epochs), "--precision", "fp32", "--device", "cpu", "--lr",
        str(_LR), "--wd", str(_DECAY), "--beta2", str(_BETAS[1]), "--eps", str(_EPS), "--grad-clip-norm", "1",
        "--warmup", str(job.warmup), "--seed", str(job.seed), "--save-frequency", "0", "--logs",
        str(job.folder),
    ])  # fmt: skip
    job.encoder.module.load_state_dict(trained.state_dict())
    return watching.monitor


TRAINERS: dict[str, Callable[[Job], Monitor]] = {
    "transformers": by_transformers,
    "Lightning": by_lightning,
    "open_clip": by_open_clip,
}


def run(out: Path, scale: Mapping[str, int], seeds: int) -> None:
    """Train what is missing."""
    data = acting.load(out, scale)
    for seed in range(seeds):
        cell = acting.Cell(data, RATE, "random", seed, out)
        cell.run(("reweight",))  # and everything: clipmem's own two trainings
        for name, train in TRAINERS.items():
            for arm, share in zip(ARMS, (0.0, 2 * RATE), strict=True):
                file = cell.place / f"{name}-{arm}.json"
                if file.is_file():
                    continue
                folder = cell.place / f"{name}-{arm}"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                job, started = Job(data, cell.captions, seed, share, folder), time.monotonic()
                monitor = train(job)
                seconds = time.monotonic() - started
                if monitor.failure:
                    raise SystemExit(monitor.failure)
                job.encoder.module.eval()
                entry = {"trainer": name, "arm": arm, "seed": seed, "recall": acting.recall(data, job.encoder)}
                write_json(file, entry | {"watched": monitor.seconds / seconds, "epochs": len(monitor.history) - 1})
                shutil.rmtree(folder)
                print(file.read_text(encoding="utf-8"), flush=True)


def collect(out: Path) -> list[dict[str, Any]]:
    """Return the rows of all trainings."""
    rows = list[dict[str, Any]]()
    for file in sorted(out.glob("cells/*/*.json")):
        row = json.loads(file.read_text(encoding="utf-8"))
        method = {"everything": "plain", "reweight": "reweight"}.get(row.get("method", ""))
        if method:
            row = {"trainer": OWN, "arm": method, "seed": row["seed"], "recall": row["recall"]}
        rows.append(row)
    return sorted(rows, key=lambda row: ([OWN, *TRAINERS].index(row["trainer"]), row["arm"], row["seed"]))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table: gain of each trainer, that minus clipmem's own, and the cost of watching."""
    lines = ["| trained by | R@5, plain | gain | gain minus that of clipmem | time of `MemorizationCallback` |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    recall = {
        (name, arm): 100 * np.array([row["recall"] for row in rows if (row["trainer"], row["arm"]) == (name, arm)])
        for name in (OWN, *TRAINERS)
        for arm in ARMS
    }
    own = recall[OWN, "reweight"] - recall[OWN, "plain"]
    for name in (OWN, *TRAINERS):
        plain, weighted = recall[name, "plain"], recall[name, "reweight"]
        cells = [_with_interval(weighted, plain), "", ""]
        if name != OWN:
            watched = [row["watched"] for row in rows if row["trainer"] == name]
            cells[1:] = [_with_interval(weighted - plain, own), f"{100 * np.mean(watched):.1f}%"]
        lines += [f"| {name} | {plain.mean():.1f}% | {' | '.join(cells)} |"]
    return "\n".join(lines)


def _with_interval(a: np.ndarray, b: np.ndarray) -> str:
    test = paired_test(a, b)
    return f"{test.difference:+.1f} [{test.low:.1f}, {test.high:.1f}]"


def main() -> None:
    """Train, or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a few pairs and two seeds")
    parser.add_argument("--record", action="store_true", help="store what is there, and write the table of the page")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.record:
        run(args.out, QUICK if args.quick else FULL, 2 if args.quick else SEEDS)
    rows = collect(args.out)
    if args.record:
        write_json(RECORD, rows)
        text = PAGE.read_text(encoding="utf-8")
        pattern = re.compile(r"(<!-- callbacks -->\n).*?(<!-- end -->)", re.DOTALL)
        PAGE.write_text(pattern.sub(lambda found: f"{found[1]}{table(rows)}\n{found[2]}", text), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
