"""transformers' Trainer with clipmem's callbacks: does it memorize its pairs, and which captions are suspect?

    python examples/transformers_trainer.py [--quick] [--reweight 0.4] [--average 0.9] [--record trajectory.npz]

Needs `pip install '.[hf]' accelerate`. Replace the small CLIP and the emoji with your own; to reweight or record, the
data set's items need an "index", and the training arguments `remove_unused_columns=False`.
"""

import argparse
import tempfile

import torch
from averaging import average, distance
from emoji_pairs import emoji
from open_clip.tokenizer import SimpleTokenizer
from torchvision.transforms import v2
from transformers import CLIPConfig, CLIPModel, Trainer, TrainingArguments, default_data_collator

from clipmem.integrations.transformers import MemorizationCallback, ReweightCallback

_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def items(images, captions, size=32):
    """Return what the model gets of each pair."""
    transform = v2.Compose([v2.ToImage(), v2.Resize((size, size)), v2.ToDtype(torch.float32, scale=True)])
    return [
        {"pixel_values": transform(image), "input_ids": row, "attention_mask": (row != 0).long(), "index": k}
        for k, (image, row) in enumerate(zip(images, SimpleTokenizer(context_length=32)(captions), strict=True))
    ]


def small_clip():
    """Return a small CLIP with random weights."""
    config = CLIPConfig(
        text_config={**_SMALL, "vocab_size": 49408, "max_position_embeddings": 32, "eos_token_id": 49407},
        vision_config={**_SMALL, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    return CLIPModel(config)


def batch_of(rows):
    """Stack the items, and ask the model for its loss."""
    return {**default_data_collator(rows), "return_loss": True}


def main(arguments=None):
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 128 pairs and two epochs (seconds)")
    parser.add_argument("--reweight", type=float, default=0.0, help="share of pairs with a weight below 1; 0 = none")
    parser.add_argument("--average", type=float, help="decay of an average of the weights over the steps")
    parser.add_argument("--record", default="", help="write each pair's similarity and margin per epoch here (.npz)")
    chosen = parser.parse_args(arguments)
    count = 128 if chosen.quick else 512
    pairs = emoji(count + 64)
    images, captions = [pair.decode() for pair in pairs], [pair.captions[0] for pair in pairs]
    data, uids = items(images, captions), [pair.uid for pair in pairs[:count]]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, per_device_train_batch_size=64, num_train_epochs=2 if chosen.quick else 10, learning_rate=1e-3,
            logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(small_clip(), settings, batch_of, data[:count])
        trainer.add_callback(monitor := MemorizationCallback(trainer, data[count:], pairs=64, budget=1.0))
        if chosen.reweight or chosen.record:
            reweight = ReweightCallback(images[:count], captions[:count], chosen.reweight, ids=uids)
            trainer.add_callback(reweight)
        if chosen.average is not None:
            averaged = average(trainer.model, trainer.create_optimizer(), chosen.average)
        trainer.train()
    if chosen.record:
        reweight.loss.recorder.save(chosen.record)
    if chosen.average is not None:
        print(f"the average is {distance(averaged, trainer.model):.4f} from the last weights")
    print(monitor.monitor.verdict)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"{len(losses)} steps; loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")


if __name__ == "__main__":
    main()
