"""Reweighting in a training of your own: pairs with suspect captions count less in the loss (docs/noisy-captions.md).

    python examples/reweighting.py [--quick] [--trainer loop] [--share 0.4]
    python examples/reweighting.py --quick --trainer transformers      # pip install '.[hf]' accelerate

`examples/open_clip_trainer.py --reweight 0.4` has the hook for open_clip's own trainer. Each compares every pair with
its neighbors once, before training, which takes time proportional to the square of their number.
"""

import argparse
import json
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from emoji_pairs import emoji
from PIL import Image
from torch import Tensor

from clipmem import AlignmentRecorder
from clipmem.base.hashing import numbered
from clipmem.mitigate import pair_weights
from clipmem.mitigate.reweight import neighbor_agreement
from clipmem.models.signals import Signals

_SIZE = 64  # of the images that are compared


class Reweighting:
    """A contrastive loss that trusts suspect captions less: make it once, and call it instead of your loss.

    Args:
        images: The training images, in the order of the data set.
        captions: Their captions.
        share: Share of pairs with a weight below 1: twice the share of mismatched captions that you expect.
    """

    def __init__(self, images: Sequence[Image.Image], captions: Sequence[str], share: float):
        small = np.stack([np.asarray(image.convert("RGB").resize((_SIZE, _SIZE))) for image in images])
        group = numbered(image.tobytes().hex() for image in small)  # the same image is no neighbor of itself
        uids, texts = [str(k) for k in range(len(small))], [[caption] for caption in captions]
        self.agreement = neighbor_agreement(Signals(uids, texts, group, pixels=lambda rows: small[rows]))
        self.recorder, self.share, self.epoch, self.weights = AlignmentRecorder(len(small)), share, -1, torch.ones(0)

    def __call__(self, index: Tensor, image: Tensor, text: Tensor, scale: Tensor | float, epoch: int) -> Tensor:
        """Return the loss of a batch.

        Args:
            index: Places of its pairs in the data set, from 0.
            image: Normalized embeddings of the images, shape (n, d).
            text: Normalized embeddings of the captions.
            scale: Factor of the similarities.
            epoch: Number of the epoch, from 0: weights change between epochs.
        """
        if epoch != self.epoch:  # by finished epochs only
            weights = pair_weights(self.agreement, self.recorder.margin[:epoch], share=self.share)
            self.weights, self.epoch = torch.from_numpy(weights), epoch
        if image.requires_grad:  # not in an evaluation
            self.recorder.update(index, image, text, epoch)
        weight, target = self.weights[index.cpu()].to(image.device), torch.arange(len(image), device=image.device)
        logits = scale * image @ text.T
        both = [F.cross_entropy(rows, target, reduction="none") for rows in (logits, logits.T)]
        return (weight * (both[0] + both[1])).sum() / (2 * weight.sum())


def train_in_loop(images, captions, *, epochs, batch, share):
    """Train a small open_clip model in a plain loop; return the losses of all steps."""
    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer
    from torchvision.transforms import v2

    config = json.loads((files("clipmem.models") / "configs" / "clipmem-micro.json").read_text(encoding="utf-8"))
    size = config["vision_cfg"]["image_size"]
    transform = v2.Compose([v2.ToImage(), v2.Resize((size, size)), v2.ToDtype(torch.float32, scale=True)])
    pixels = torch.stack([transform(image) for image in images])
    tokens = SimpleTokenizer(context_length=config["text_cfg"]["context_length"])(captions)
    model = CLIP(**config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.2)
    losses, loss_of = [], Reweighting(images, captions, share)  # clipmem: before training
    for epoch in range(epochs):
        for index in torch.randperm(len(images)).split(batch):
            u = F.normalize(model.encode_image(pixels[index]), dim=-1)
            v = F.normalize(model.encode_text(tokens[index]), dim=-1)
            loss = loss_of(index, u, v, model.logit_scale.exp(), epoch)  # clipmem: instead of ClipLoss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def train_with_transformers(images, captions, *, epochs, batch, share):
    """Train a small CLIP with transformers' Trainer; return the losses in its log."""
    import tempfile

    from transformers import Trainer, TrainingArguments, default_data_collator
    from transformers_trainer import items, small_clip

    model, loss_of = small_clip(), Reweighting(images, captions, share)  # clipmem: before training

    def reweighted(output, labels, **_):
        scale, epoch = model.logit_scale.exp(), int(trainer.state.epoch or 0)
        return loss_of(labels, output.image_embeds, output.text_embeds, scale, epoch)

    data = [
        {"labels" if name == "index" else name: value for name, value in item.items()}  # clipmem: places as labels
        for item in items(images, captions)
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, per_device_train_batch_size=batch, num_train_epochs=epochs, learning_rate=1e-3, logging_steps=1,
            save_strategy="no", report_to=[], use_cpu=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(model, settings, default_data_collator, data, compute_loss_func=reweighted)  # clipmem
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main(arguments=None):
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 128 pairs and two epochs (seconds)")
    parser.add_argument("--trainer", choices=("loop", "transformers"), default="loop")
    parser.add_argument("--share", type=float, default=0.4, help="share of pairs with a weight below 1")
    chosen = parser.parse_args(arguments)
    torch.manual_seed(0)
    pairs = emoji(128 if chosen.quick else 512)
    images, captions = [pair.decode() for pair in pairs], [pair.captions[0] for pair in pairs]
    train = {"loop": train_in_loop, "transformers": train_with_transformers}[chosen.trainer]
    losses = train(images, captions, epochs=2 if chosen.quick else 10, batch=64, share=chosen.share)
    print(f"{len(losses)} steps; loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    return losses


if __name__ == "__main__":
    main()
