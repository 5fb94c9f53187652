"""A plain PyTorch loop with three mitigations: several captions, noise on text embeddings, removed pairs.

    python examples/plain_loop.py [--quick] [--captions 5] [--std 0.15] [--remove RUN --count 50]

Replace the small open_clip model and the emoji with your own. The parts that use clipmem are marked.
"""

import argparse
import json
from importlib.resources import files

import torch
import torch.nn.functional as F  # noqa: N812
from emoji_pairs import emoji
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from clipmem.data.views import pair_keys
from clipmem.mitigate import CaptionSampling, TextEmbeddingNoise, removal_list


class Pairs(Dataset):
    """Images with lists of tokenized captions."""

    def __init__(self, pairs, config, captions):
        size = config["vision_cfg"]["image_size"]
        tokenize = SimpleTokenizer(context_length=config["text_cfg"]["context_length"])
        transform = v2.Compose(
            [v2.ToImage(), v2.Resize((size, size), antialias=True), v2.ToDtype(torch.float32, scale=True)]
        )
        self._items = [(transform(pair.decode()), list(tokenize(pair.captions[:captions]))) for pair in pairs]

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return self._items[index]


def train(*, pairs=512, epochs=10, batch=64, std=0.0, captions=5, leave_out=frozenset(), seed=0):
    """Train, and return the losses of all steps."""
    torch.manual_seed(seed)
    config = json.loads((files("clipmem.models") / "configs" / "clipmem-micro.json").read_text(encoding="utf-8"))
    model = CLIP(**config)
    chosen = emoji(pairs, leave_out=leave_out)
    # clipmem: samples one caption of each pair per epoch; with keys, the sample depends on the pair, not its position
    data = CaptionSampling(
        Pairs(chosen, config, captions),
        seed=seed,
        keys=pair_keys([pair.uid for pair in chosen]),
    )
    loader = DataLoader(data, batch_size=batch, shuffle=True, drop_last=True)
    # clipmem: a module, inactive in eval mode and in the first third of the steps
    noise = TextEmbeddingNoise(std, place="post", seed=seed, steps=epochs * len(loader))
    loss_of, optimizer = ClipLoss(), torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.2)
    losses = []
    for epoch in range(epochs):
        data.set_epoch(epoch)
        for images, tokens in loader:
            u = F.normalize(model.encode_image(images), dim=-1)
            v = F.normalize(model.encode_text(tokens), dim=-1)
            loss = loss_of(u, noise(v), model.logit_scale.exp())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def main(arguments=None):
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 128 pairs and two epochs (seconds)")
    parser.add_argument("--std", type=float, default=0.0, help="noise on the text embeddings; 0 = none")
    parser.add_argument("--captions", type=int, default=5, help="captions per pair")
    parser.add_argument("--remove", default="", help="remove the most memorized pairs of this finished clipmem run")
    parser.add_argument("--count", type=int, default=50, help="number of pairs to remove")
    chosen = parser.parse_args(arguments)
    # clipmem: uids of the pairs with the highest CLIPMem
    worst = frozenset(removal_list(chosen.remove, chosen.count)) if chosen.remove else frozenset()
    size = {"pairs": 128, "epochs": 2} if chosen.quick else {}
    losses = train(std=chosen.std, captions=chosen.captions, leave_out=worst, **size)
    print(f"{len(losses)} steps; loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")
    return losses


if __name__ == "__main__":
    main()
