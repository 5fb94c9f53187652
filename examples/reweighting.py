"""Reweighting in a training loop: pairs with suspect captions count less in the loss (docs/noisy-captions.md).

    python examples/reweighting.py [--quick] [--share 0.4]

`examples/transformers_trainer.py` and `open_clip_trainer.py` do so in other trainers. Before training, every pair is
compared with every other, which takes time proportional to the square of their number.
"""

import argparse
import json
from importlib.resources import files

import torch
import torch.nn.functional as F  # noqa: N812
from emoji_pairs import emoji
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torchvision.transforms import v2

from clipmem.mitigate import Reweighting


def train(images, captions, *, epochs, batch, share):
    """Train a small open_clip model in a plain loop; return the losses of all steps."""
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


def main(arguments=None):
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 128 pairs and two epochs (seconds)")
    parser.add_argument("--share", type=float, default=0.4, help="share of pairs with a weight below 1")
    chosen = parser.parse_args(arguments)
    torch.manual_seed(0)
    pairs = emoji(128 if chosen.quick else 512)
    images, captions = [pair.decode() for pair in pairs], [pair.captions[0] for pair in pairs]
    losses = train(images, captions, epochs=2 if chosen.quick else 10, batch=64, share=chosen.share)
    print(f"{len(losses)} steps; loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    return losses


if __name__ == "__main__":
    main()
