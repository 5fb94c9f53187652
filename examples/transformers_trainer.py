"""transformers' Trainer with clipmem's recorder: each pair's similarity and margin in every epoch.

    python examples/transformers_trainer.py [--quick] [--record trajectory.npz]

Needs `pip install '.[hf]' accelerate`. Replace the small CLIP and the emoji with your own; the data set's items
need an "index", and the training arguments `remove_unused_columns=False`. `reweighting.py` has the hook that lowers
the weight of suspect captions.
"""

import argparse
import tempfile

import torch
from emoji_pairs import emoji
from open_clip.tokenizer import SimpleTokenizer
from torchvision.transforms import v2
from transformers import CLIPConfig, CLIPModel, Trainer, TrainerCallback, TrainingArguments, default_data_collator

from clipmem import AlignmentRecorder

_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


class RecordCallback(TrainerCallback):
    """Records every training step of a CLIP model, and writes the record at the end."""

    def __init__(self, model, recorder, file):
        self.recorder, self.file, self.epoch, self.index = recorder, file, 0, None
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)

    def _before(self, _, arguments, named):
        self.index = named.pop("index", None)
        return arguments, named

    def _after(self, model, _, output):
        if model.training:
            self.recorder.update(self.index, output.image_embeds, output.text_embeds, self.epoch)

    def on_epoch_begin(self, _, state, *__, **___):
        """Keep the number of the epoch."""
        self.epoch = int(state.epoch)

    def on_train_end(self, *_, **__):
        """Write the record."""
        if self.file:
            self.recorder.save(self.file)


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
    parser.add_argument("--record", default="trajectory.npz", help="file of the record")
    chosen = parser.parse_args(arguments)
    pairs = emoji(128 if chosen.quick else 512)
    data = items([pair.decode() for pair in pairs], [pair.captions[0] for pair in pairs])
    model = small_clip()
    recorder = AlignmentRecorder([pair.uid for pair in pairs])
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, per_device_train_batch_size=64, num_train_epochs=2 if chosen.quick else 10, learning_rate=1e-3,
            logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(model, settings, batch_of, data)
        trainer.add_callback(RecordCallback(model, recorder, chosen.record))
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"{len(losses)} steps; loss {losses[0]:.3f} at the start, {losses[-1]:.3f} at the end")


if __name__ == "__main__":
    main()
