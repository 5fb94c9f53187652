"""The callbacks in transformers' Trainer with a tiny CLIP: what is logged is what the monitor computes by hand."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clipmem.base.errors import InputError
from clipmem.integrations.monitor import Monitor
from clipmem.mitigate.reweight import Reweighting

for _package in ("transformers", "accelerate"):
    pytest.importorskip(_package, reason="needs the extra `hf` and accelerate")

from transformers import CLIPConfig, CLIPModel, Trainer, TrainerCallback, TrainingArguments, default_data_collator

from clipmem.integrations.transformers import MemorizationCallback, ReweightCallback
from tests.overfitting import OverfittingEmbeddings

pytestmark = pytest.mark.filterwarnings("ignore")  # what transformers says
_TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
N = 24


def tiny_clip(seed=0):
    config = CLIPConfig(
        text_config={**_TINY, "vocab_size": 50, "max_position_embeddings": 6, "eos_token_id": 49},
        vision_config={**_TINY, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)


def items(seed, n=N, **more):
    drawn = torch.Generator().manual_seed(seed)
    return [
        {
            "pixel_values": torch.randn(3, 8, 8, generator=drawn),
            "input_ids": torch.cat([torch.randint(1, 48, (5,), generator=drawn), torch.tensor([49])]),
            "index": k,
            **more,
        }
        for k in range(n)
    ]


def without_index(pairs):
    return [{name: value for name, value in pair.items() if name != "index"} for pair in pairs]


def batch_of(rows):
    return {**default_data_collator(rows), "return_loss": True}


def trainer_of(folder, train, *, model=None, collate=batch_of, eval_dataset=None, **settings):
    options = {
        "per_device_train_batch_size": 8, "num_train_epochs": 3, "learning_rate": 3e-3, "logging_steps": 1,
        "save_strategy": "no", "report_to": [], "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True,
    } | settings  # fmt: skip
    arguments = TrainingArguments(folder, **options)
    return Trainer(model or tiny_clip(), arguments, collate, train, eval_dataset)


class ByHand(TrainerCallback):
    """The monitor itself, called after each epoch."""

    def __init__(self, train, held_out, model):
        def embed(model, batch):
            output = model(pixel_values=batch["pixel_values"], input_ids=batch["input_ids"])
            return output.image_embeds, output.text_embeds

        self.values, self.monitor = [], Monitor(held_out, train=train, embed=embed, pairs=N, budget=1.0)
        self.monitor.begin(model, collate=batch_of)

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.monitor.measure(round(state.epoch), model, self.values.append)


def logged(trainer):
    rows = [entry for entry in trainer.state.log_history if "clipmem/margin_gap" in entry]
    return [{name: value for name, value in row.items() if name.startswith("clipmem/")} for row in rows]


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=str)
def test_logged_values_are_those_computed_by_hand(tmp_path, more):
    train, held_out = without_index(items(1)), without_index(items(2))
    trainer = trainer_of(tmp_path, train, **more)
    by_hand = ByHand(train, held_out, trainer.model)
    callback = MemorizationCallback(trainer, held_out, pairs=N, budget=1.0)
    trainer.add_callback(by_hand)
    trainer.add_callback(callback)
    trainer.train()
    assert not callback.monitor.failure
    assert logged(trainer) == by_hand.values
    assert [row.epoch for row in callback.monitor.history] == [0, 1, 2, 3]
    assert callback.monitor.history == by_hand.monitor.history or more == {"bf16": True}  # before: without autocast
    assert by_hand.values[-1]["clipmem/train_recall_at_5"] > by_hand.values[0]["clipmem/train_recall_at_5"]


def test_weights_are_those_without_the_callback(tmp_path):
    weights = []
    for watched in (False, True):
        trainer = trainer_of(tmp_path, items(1), collate=batch_without_index, seed=3)
        if watched:
            trainer.add_callback(MemorizationCallback(trainer, items(2), budget=1.0))
        trainer.train()
        assert bool(logged(trainer)) is watched
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def batch_without_index(rows):
    return batch_of(without_index(rows))


def test_the_trainers_own_loggers_get_the_values(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    trainer = trainer_of(tmp_path, items(1), collate=batch_without_index, report_to=["tensorboard"])
    trainer.add_callback(MemorizationCallback(trainer, items(2), budget=1.0))
    trainer.train()
    [file] = (tmp_path / "logs").rglob("events.out.*")
    events = EventAccumulator(str(file.parent)).Reload()
    [name] = [tag for tag in events.Tags()["scalars"] if tag.endswith("clipmem/margin_gap")]
    gaps = [row["clipmem/margin_gap"] for row in logged(trainer)]
    assert [event.value for event in events.Scalars(name)] == pytest.approx(gaps, abs=1e-6)


def test_held_out_pairs_are_the_eval_data_by_default_and_columns_are_removed(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")

    def data(seed):
        rows = [{name: value.tolist() for name, value in pair.items()} for pair in without_index(items(seed))]
        return datasets.Dataset.from_list([row | {"caption": "a cat"} for row in rows])

    trainer = trainer_of(
        tmp_path, data(1), eval_dataset={"a": data(2), "b": data(3)}, remove_unused_columns=True, eval_strategy="no"
    )
    trainer.add_callback(callback := MemorizationCallback(trainer, pairs=12, budget=1.0))
    trainer.train()
    assert not callback.monitor.failure
    assert len(callback.monitor.history) == 4


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from without_index(items(1))


def test_a_data_set_without_random_access(tmp_path):
    trainer = trainer_of(tmp_path, Stream(), max_steps=6)
    trainer.add_callback(callback := MemorizationCallback(trainer, without_index(items(2)), pairs=12, budget=1.0))
    trainer.train()
    assert not callback.monitor.failure
    assert [row.epoch for row in callback.monitor.history] == [0, 1, 2]
    assert trainer.state.global_step == 6


def test_the_alarm_ends_the_training(tmp_path, caplog):
    trainer = trainer_of(tmp_path, items(1, 64), collate=batch_without_index, num_train_epochs=9)
    callback = MemorizationCallback(
        trainer, items(2, 64), embed=OverfittingEmbeddings(), pairs=64, budget=1.0, stop_when="overfitting"
    )
    trainer.add_callback(callback)
    trainer.train()
    assert trainer.state.epoch == 2
    assert callback.monitor.verdict.startswith("overfitting since epoch 1")
    assert [row["clipmem/overfitting"] for row in logged(trainer)] == [0, 1]


@pytest.mark.parametrize(
    ("held_out", "settings", "words"),
    [
        (None, {}, "held_out: got no validation data"),
        (iter([]), {}, "iterator"),
        (items(2, 3), {}, "sample: got 3 pairs"),
        (items(2), {"embed": lambda model, batch: (batch["pixel_values"], batch["input_ids"])}, "embed: got shapes"),
        ([{"text": "no pair"}] * 9, {}, ""),
    ],
)
def test_what_fails_is_logged_once_and_the_training_ends_as_without(tmp_path, held_out, settings, words, caplog):
    trainer = trainer_of(tmp_path, items(1), collate=batch_without_index)
    trainer.add_callback(callback := MemorizationCallback(trainer, held_out, **settings))
    trainer.train()
    assert trainer.state.global_step == 9
    assert words in callback.monitor.failure
    assert callback.monitor.failure
    assert not logged(trainer)
    assert len([one for one in caplog.records if one.name == "clipmem" and one.levelno == logging.WARNING]) == 1


def test_a_logger_that_fails_ends_nothing(tmp_path, caplog):
    class Broken(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "clipmem/margin_gap" in logs:
                raise ModuleNotFoundError("No module named 'wandb'")

    trainer = trainer_of(tmp_path, items(1), collate=batch_without_index)
    trainer.add_callback(Broken())
    trainer.add_callback(callback := MemorizationCallback(trainer, items(2), budget=1.0))
    trainer.train()
    assert trainer.state.global_step == 9
    assert "wandb" in callback.monitor.failure


# ---- reweighting


def images_and_captions(n=N):
    drawn = np.random.default_rng(0)
    images = [Image.fromarray(drawn.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(n)]
    return images, [f"thing {k % 5} of kind {k % 3}" for k in range(n)]


class Following(TrainerCallback):
    """The loss of the mitigation, called with the same batches."""

    def __init__(self, model, loss_of):
        self.loss_of, self.losses, self.weights, self.epoch = loss_of, [], [], 0
        self.index = None
        model.register_forward_pre_hook(self._before, with_kwargs=True)
        model.register_forward_hook(self._after)

    def _before(self, _, arguments, named):
        self.index = named["index"]

    def _after(self, model, _, output):
        u, v = (F.normalize(rows, dim=-1) for rows in (output.image_embeds, output.text_embeds))
        self.losses.append(self.loss_of(self.index, u, v, model.logit_scale.exp(), self.epoch).item())
        self.weights.append(self.loss_of.weights)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch = int(state.epoch)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_losses_and_weights_are_those_of_the_mitigation(tmp_path, accumulation):
    images, captions = images_and_captions()
    trainer = trainer_of(tmp_path, items(1), gradient_accumulation_steps=accumulation)
    following = Following(trainer.model, Reweighting(images, captions, 0.4))
    trainer.add_callback(following)
    trainer.add_callback(callback := ReweightCallback(images, captions, share=0.4))
    trainer.train()
    assert torch.equal(callback.loss.weights, following.loss_of.weights)
    assert callback.loss.weights.min() < 0.2
    np.testing.assert_array_equal(callback.loss.recorder.margin, following.loss_of.recorder.margin)
    assert callback.loss.recorder.margin.shape == (3, N)
    assert not np.isnan(callback.loss.recorder.margin).any()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    expected = np.array(following.losses).reshape(-1, accumulation).mean(1)  # the mean of its micro-batches
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_with_a_share_of_0_it_records_only(tmp_path):
    images, captions = images_and_captions()
    weights = []
    for share in (None, 0.0):
        trainer = trainer_of(tmp_path, items(1) if share == 0 else without_index(items(1)))
        if share == 0:
            trainer.add_callback(callback := ReweightCallback(images, captions, share=0.0))
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])
    assert not np.isnan(callback.loss.recorder.margin).any()


def test_repeated_and_dropped_pairs(tmp_path):
    """Pairs that a sampler repeats keep their last values; those that it drops have none, and still a weight."""

    class Uneven(torch.utils.data.Dataset):
        def __init__(self):
            self.rows = [0, 0, 1, 1, *range(2, N - 4)]

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, k):
            return items(1)[self.rows[k]]

    trainer = trainer_of(tmp_path, Uneven(), dataloader_drop_last=True)
    trainer.add_callback(callback := ReweightCallback(*images_and_captions(), share=0.4))
    trainer.train()
    margin = callback.loss.recorder.margin
    assert np.isnan(margin[:, N - 4 :]).all()
    assert not np.isnan(margin[:, :2]).any()
    assert torch.isfinite(callback.loss.weights).all()


def test_captions_may_be_lists_and_pairs_of_an_iterator_keep_their_ids(tmp_path):
    class Indexed(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from items(1)

    images, captions = images_and_captions()
    trainer = trainer_of(tmp_path, Indexed(), max_steps=6)
    trainer.add_callback(callback := ReweightCallback(iter(images), [[text, "a thing"] for text in captions], 0.4))
    trainer.train()
    assert callback.loss.recorder.margin.shape == (2, N)


@pytest.mark.parametrize(
    ("train", "what", "words"),
    [
        (without_index(items(1)), "ReweightCallback", "a batch without pair ids"),
        ([pair | {"index": k + 30} for k, pair in enumerate(items(1))], "recorder.update indices", ""),
    ],
)
def test_a_training_without_pair_ids_is_refused_in_its_first_step(tmp_path, train, what, words):
    trainer = trainer_of(tmp_path, train)
    trainer.add_callback(ReweightCallback(*images_and_captions(), share=0.4))
    with pytest.raises(InputError) as caught:
        trainer.train()
    assert caught.value.what == what
    assert words in caught.value.got
    assert trainer.state.global_step == 0


def test_siglip_and_several_gpus_of_a_process_are_refused(tmp_path):
    callback, arguments = ReweightCallback(*images_and_captions(), share=0.4), TrainingArguments(tmp_path, use_cpu=True)
    model = tiny_clip()
    model.logit_bias = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(InputError, match="SigLIP"):
        callback.on_train_begin(arguments, None, None, model=model)
    arguments._n_gpu = 2
    with pytest.raises(InputError, match="GPU"):
        callback.on_train_begin(arguments, None, None, model=tiny_clip())


@pytest.mark.parametrize(
    ("images", "captions", "share", "what"),
    [(3, 2, 0.4, "Reweighting"), (0, 0, 0.4, "Reweighting"), (2, 2, 1.0, "Reweighting share")],
)
def test_arguments_of_the_reweighting_are_checked(images, captions, share, what):
    several = images_and_captions(3)
    with pytest.raises(InputError) as caught:
        ReweightCallback(several[0][:images], several[1][:captions], share)
    assert caught.value.what == what


def test_an_evaluation_records_nothing(tmp_path):
    trainer = trainer_of(tmp_path, items(1), eval_dataset=without_index(items(2)), eval_strategy="epoch")
    trainer.add_callback(callback := ReweightCallback(*images_and_captions(), share=0.4))
    trainer.add_callback(MemorizationCallback(trainer, pairs=12, budget=1.0))
    trainer.train()
    assert len(logged(trainer)) == 3
    assert callback.loss.recorder.margin.shape == (3, N)
