"""What `tests/e2e/test_callbacks_processes.py` starts twice: transformers' Trainer with both callbacks, on gloo.

Each process writes what its callbacks found into OUT/rank-K.json. With `--broken`, measuring fails in the second.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from clipmem.integrations.transformers import MemorizationCallback, ReweightCallback
from tests.e2e.test_callbacks_transformers import N, images_and_captions, items, trainer_of


def main(out, broken):
    trainer = trainer_of(out / "trainer", items(1), per_device_train_batch_size=4, ddp_find_unused_parameters=False)
    rank = dist.get_rank()

    def embed(model, batch):
        if broken and rank:
            raise ZeroDivisionError("in the second process")
        output = model(pixel_values=batch["pixel_values"], input_ids=batch["input_ids"])
        return output.image_embeds, output.text_embeds

    monitor = MemorizationCallback(trainer, items(2), pairs=N, budget=1.0, embed=embed)
    reweight = ReweightCallback(*images_and_captions(), share=0.4)
    trainer.add_callback(monitor)
    trainer.add_callback(reweight)
    trainer.train()
    found = {
        "history": [row._asdict() for row in monitor.monitor.history],
        "weights": reweight.loss.weights.tolist(),
        "recorded": int(torch.isfinite(reweight.loss.recorder.tensors()["margin"]).sum()),
        "steps": trainer.state.global_step,
    }
    (out / f"rank-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--broken" in sys.argv)
