"""A real ViT-B-32 (random weights), as open_clip's and transformers' checkpoint: fine-tuned for two steps."""

import shutil

import numpy as np
import pytest
import torch

from clipmem.base.sections import ModelSection, TrainSection
from clipmem.data.decoding import decode
from clipmem.models import given, openclip
from clipmem.models.start import Start
from clipmem.train.batches import TrainingData
from clipmem.train.loop import train
from clipmem.train.objectives import Towers
from clipmem.train.paired import TrainingSet
from tests import tokens
from tests.tiny import encoded_image

N, RANK = 4, 4
WIDTHS = {"visual": (768, 12), "text": (512, 12)}
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
WAYS = {
    "full": {},
    "frozen image": {"freeze": ("image",)},
    "frozen text": {"freeze": ("text",)},
    "LoRA": {"adapter": "lora", "lora": {"rank": RANK}},
}


def open_clips(folder):
    openclip.create("ViT-B-32", seed=1).save(folder)
    return str(folder)


def transformers_checkpoint(folder):
    library = pytest.importorskip("transformers", reason="the extra hf is not installed")
    folder.mkdir()
    words = tokens.clip(folder)
    text = {
        **TEXT,
        "vocab_size": 49408,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
    }
    vision = {**VISION, "image_size": 224, "patch_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = library.CLIPModel(library.CLIPConfig(text_config=text, vision_config=vision, projection_dim=512))
    model.save_pretrained(folder)
    return f"transformers:{folder}"


@pytest.fixture(scope="module", params=[open_clips, transformers_checkpoint], ids=["open_clip", "transformers"])
def address(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit") / "base"
    yield request.param(folder)
    shutil.rmtree(folder)


def lora_parameters():
    """r (in + out) of every adapted matrix; of attention, one matrix (open_clip) or four (transformers)."""
    joint, apart = {}, {}
    for tower, (width, blocks) in WIDTHS.items():
        mlp = 2 * (width + 4 * width)
        joint[tower] = RANK * blocks * (width + 3 * width + mlp)
        apart[tower] = RANK * blocks * (4 * 2 * width + mlp)
    return {"open_clip": sum(joint.values()), "transformers": sum(apart.values())}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_steps(address, tmp_path, way):
    if way == "LoRA":
        pytest.importorskip("peft", reason="the extra hf is not installed")
    section = TrainSection(epochs=1, batch_size=2, lr=1e-4, warmup=0, precision="fp32", **WAYS[way])
    start = Start(ModelSection(pretrained=address), section)
    facts = start.describe()["base"]
    assert (facts["width"], facts["image_size"]) == (512, 224)
    assert 150e6 < facts["parameters"] < 152e6
    encoder = start.create(0)
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    pixels = np.stack([decode(encoded_image(k, size=224), size=224, name=str(k)) for k in range(N)])
    data = TrainingData(pixels, np.arange(N), [[f"a red cat number {k}"] for k in range(N)])
    uids = tuple(f"{k:032x}" for k in range(N))
    train(Towers(encoder), data, TrainingSet("f", 0, uids, N), section, tmp_path)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    after = encoder.module.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    image = {name for name in after if encoder.is_image_parameter(name)}
    if way == "LoRA":
        adapted = {name for name, p in encoder.module.named_parameters() if p.requires_grad}
        assert moved == adapted
        kind = "transformers" if address.startswith("transformers:") else "open_clip"
        assert sum(after[name].numel() for name in adapted) == lora_parameters()[kind]
    else:
        towers = {"full": image | (set(after) - image), "frozen image": set(after) - image, "frozen text": image}[way]
        still = {name for name in towers if name not in moved}
        assert moved <= towers | {"logit_scale"}
        # the gradient of a key's bias is zero up to rounding
        assert all(name.endswith(("k_proj.bias", "position_ids", "attn_mask")) for name in still - {"logit_scale"}), (
            still
        )
    found = given.load_saved(tmp_path)
    encoder.module.eval()
    values = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, theirs in (
            (encoder.encode_image(values), found.encode_image(values)),
            (encoder.encode_text(encoder.tokenize(["a cat"])), found.encode_text(found.tokenize(["a cat"]))),
        ):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
