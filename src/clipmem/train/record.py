"""Files of a trained model: the weights, `log.jsonl`, and `record.json`, which serves to compare f and g."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import nn

from clipmem.base.hashing import json_sha256
from clipmem.base.paths import atomic_write, write_json
from clipmem.base.sections import TrainSection
from clipmem.models.protocol import TrainableEncoder
from clipmem.train.checkpoint import Step
from clipmem.train.objectives import Objective, Towers
from clipmem.train.objectives.base import OBJECTIVE_FILE
from clipmem.train.paired import TrainingSet


def state_hash(module: nn.Module) -> str:
    """Hash the names and bytes of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(
    towers: Towers, objective: Objective, plan: TrainingSet, settings: TrainSection, steps: int
) -> dict[str, object]:
    """Return the content of `record.json` at the start of training (see `paired.check_paired`)."""
    n, order, facts, samples_seen, step = len(plan.uids), hashlib.sha256(), objective.facts(), 0, 0
    hooks, precision, device = towers.hooks, towers.precision, towers.device
    mitigated = {"mitigate": hooks.facts()} if hooks.facts() else {}
    dumped = settings.model_dump(mode="json", exclude={"record"})  # recording changes no weight
    # sums over several processes round differently: such a model is not paired with one trained in a single process
    several = [towers.world.size] if towers.world.size > 1 else []
    for epoch in range(settings.epochs):
        for batch in hooks.batches(plan.batches(settings.batch_size, epoch), epoch):
            order.update(";".join(plan.uids[slot] if slot < plan.shared else "own" for slot in batch).encode() + b"\n")
            samples_seen += len(batch) if step < steps else 0
            step += 1
    return {
        "side": plan.side,
        "seed": plan.seed,
        "objective": settings.objective,
        "views": objective.views,
        **facts,
        **mitigated,
        "pairs": n - bool(plan.left_out),
        "uids_sha256": plan.uids_sha256,
        "steps": steps,
        "samples_seen": samples_seen,
        "init_sha256": state_hash(towers.encoder.module),
        "shared_order_sha256": order.hexdigest(),
        "settings_sha256": json_sha256([dumped, precision, device, facts, *mitigated.values(), *several]),
        "precision": precision,
        "device": device,
    }


def write(
    encoder: TrainableEncoder, objective: Objective, folder: Path, record: Mapping[str, object], log: Sequence[Step]
) -> list[Path]:
    """Write the model, its log and its record into a folder; return the files."""
    encoder.module.to("cpu")
    record = {**record, "final_sha256": state_hash(encoder.module)}
    files = encoder.save(folder)
    state = {name: tensor.cpu().contiguous() for name, tensor in objective.state_dict().items()}
    if state:
        # a separate file, so that open_clip can load the folder
        atomic_write(folder / OBJECTIVE_FILE, save_safetensors(state))
        files.append(folder / OBJECTIVE_FILE)
        record["objective_sha256"] = state_hash(objective)
    lines = "".join(json.dumps(entry) + "\n" for entry in log)
    atomic_write(folder / "log.jsonl", lines.encode())
    return [*files, folder / "log.jsonl", write_json(folder / "record.json", record)]


def write_changed(encoder: TrainableEncoder, folder: Path, parent: Path, record: Mapping[str, object]) -> list[Path]:
    """Write a trained model whose weights were changed; its log and objective are those in the folder `parent`."""
    files = encoder.save(folder)
    for name in filter(lambda name: (parent / name).is_file(), (OBJECTIVE_FILE, "log.jsonl")):
        atomic_write(folder / name, (parent / name).read_bytes())
        files.append(folder / name)
    record = {**record, "final_sha256": state_hash(encoder.module)}
    return [*files, write_json(folder / "record.json", record)]
