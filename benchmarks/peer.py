"""open_clip's own trainer: `python peer.py CSV MODEL_JSON BATCH EPOCHS PRECISION LOADER_WORKERS [cpu|cuda]`.

`open_clip_train.main` of the installed release does the training. This file only registers a custom model config and
reads the log. Prints `RATE pairs/s` over all steps but the first two, by the trainer's own clock.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import open_clip
from open_clip_train.main import main as train

_LINE = re.compile(r"Batch \(t\): ([0-9.]+)")


def arguments(
    table: str, model: str, batch: str, epochs: str, precision: str, workers: str, device: str, logs: str
) -> list[str]:
    """Return the trainer's command line: the demo recipe's settings, a log of every step, no checkpoint."""
    return [
        "--train-data", table, "--dataset-type", "csv", "--csv-img-key", "filepath", "--csv-caption-key", "title",
        "--model", model, "--batch-size", batch, "--epochs", epochs, "--precision", precision, "--workers", workers,
        "--device", device, "--lr", "1e-3", "--wd", "0.2", "--warmup", "100", "--grad-clip-norm", "1.0",
        "--aug-cfg", "scale=(0.9,1.0)", "--log-every-n-steps", "1", "--save-frequency", "0", "--logs", logs,
        "--name", "run",
    ]  # fmt: skip


def main(table: str, config: str, batch: str, epochs: str, precision: str, workers: str, device: str = "cpu") -> None:
    """Train and print the rate."""
    with tempfile.TemporaryDirectory() as folder:
        model = config
        if config.endswith(".json"):
            content = json.loads(Path(config).read_text(encoding="utf-8"))
            (Path(folder) / Path(config).name).write_text(json.dumps(content.get("model_cfg", content)))
            open_clip.add_model_config(folder)
            model = Path(config).stem
        train(arguments(table, model, batch, epochs, precision, workers, device, folder))
        log = (Path(folder) / "run" / "out.log").read_text(encoding="utf-8")
    times = [float(found) for found in _LINE.findall(log)][2:]
    print(f"RATE {int(batch) * len(times) / sum(times)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
