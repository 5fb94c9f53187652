"""Training with the used token rows only gives what training with the whole table gives."""

import copy
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clipmem.models import openclip
from clipmem.models.openclip import OpenClipEncoder
from clipmem.models.tokenizers import Vocabulary

CAPTIONS = ["a red square", "two cats", "a photo of a dog, running", "!", "sky"]
RATES = [1e-3, 2e-3, 3e-3, 1.5e-3, 5e-4]
DECAY = 0.2
EMBEDDING = "token_embedding.weight"


@pytest.fixture(scope="module")
def micro():
    encoder = openclip.create("clipmem-micro", seed=1)
    # float64, so that a difference is one of the method and not of rounding
    return OpenClipEncoder(encoder.module.double(), openclip.model_config("clipmem-micro"), encoder._tokenizer)


def fresh(micro):
    return OpenClipEncoder(copy.deepcopy(micro.module), micro.config, micro._tokenizer)


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def train(module, encode_image, encode_text, tokens):
    """A few AdamW steps as plain torch, one group with and one without decay, the rate changing."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    pixels = torch.randn(len(tokens), 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for rate in RATES:
        for group in optimizer.param_groups:
            group["lr"] = rate
        u, v = F.normalize(encode_image(pixels), dim=-1), F.normalize(encode_text(tokens), dim=-1)
        logits = module.logit_scale.exp() * u @ v.T
        target = torch.arange(len(tokens))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()


@pytest.fixture(scope="module")
def trained(micro):
    """Weights after the same steps: compact table, whole table, and open_clip alone at full context."""
    compact = fresh(micro)
    tokens = compact.tokenize(CAPTIONS)
    compact.compact_vocabulary(tokens)
    train(compact.module, compact.encode_image, compact.encode_text, tokens)
    small = compact.module.token_embedding.weight.detach().clone()
    compact.expand_vocabulary(math.prod(1 - rate * DECAY for rate in RATES))
    whole = fresh(micro)
    train(whole.module, whole.encode_image, whole.encode_text, tokens)
    plain = copy.deepcopy(micro.module)
    full = open_clip.get_tokenizer("ViT-B-32", context_length=24)(CAPTIONS)
    train(plain, plain.encode_image, plain.encode_text, full)
    return {"compact": weights(compact.module), "whole": weights(whole.module), "plain": weights(plain), "small": small}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("other", ["whole", "plain"])
def test_same_weights_as_the_whole_table(micro, trained, other):
    compact, reference = trained["compact"], trained[other]
    assert compact.keys() == reference.keys()
    before = weights(micro.module)
    used = torch.unique(micro.tokenize(CAPTIONS))
    unused = torch.ones(len(before[EMBEDDING]), dtype=torch.bool)
    unused[used] = False
    for name in compact:
        close(compact[name], reference[name])
    # the rows meant are there, and each kind did change
    moved = (reference[EMBEDDING] - before[EMBEDDING]).abs().amax(dim=1)
    assert moved[used[used != 0]].min() > 1e-3
    product = math.prod(1 - rate * DECAY for rate in RATES)
    assert product < 0.999
    close(reference[EMBEDDING][unused], before[EMBEDDING][unused] * product)


def test_small_table_holds_the_used_rows_in_order(micro, trained):
    ids = torch.unique(torch.cat([micro.tokenize(CAPTIONS).flatten(), torch.zeros(1, dtype=torch.long)]))
    assert trained["small"].shape == (len(ids), 32)
    assert torch.equal(trained["small"], trained["compact"][EMBEDDING][ids])


def test_ids_keep_their_order_and_end_of_text_is_found(micro):
    encoder = fresh(micro)
    tokens = encoder.tokenize(CAPTIONS)
    vocabulary = Vocabulary(encoder.module.token_embedding, tokens)
    rows = vocabulary.compact(tokens)
    assert torch.equal(rows.argmax(dim=-1), tokens.argmax(dim=-1))
    assert torch.equal(vocabulary.ids[rows], tokens)
    assert (rows == 0).equal(tokens == 0)  # padding is still 0, so that it is still trimmed
    assert torch.equal(vocabulary.compact(tokens[:, :1])[:, 0], rows[:, 0])


def test_padding_is_there_when_no_caption_is_padded(micro):
    encoder = fresh(micro)
    encoder.compact_vocabulary(encoder.tokenize(["cat"]))
    tokens = F.pad(encoder.tokenize(["cat"]), (0, 5))
    with torch.inference_mode():
        assert torch.equal(encoder.encode_text(tokens), encoder.encode_text(tokens[:, :3]))


def test_token_outside_raises(micro):
    encoder = fresh(micro)
    encoder.compact_vocabulary(encoder.tokenize(["a red square"]))
    with pytest.raises(IndexError):
        encoder.encode_text(encoder.tokenize(["a green square"]))
    encoder.expand_vocabulary()
    encoder.encode_text(encoder.tokenize(["a green square"]))


def test_compacting_twice_keeps_the_first(micro):
    encoder = fresh(micro)
    before = weights(encoder.module)
    encoder.compact_vocabulary(encoder.tokenize(["a red square"]))
    encoder.compact_vocabulary(encoder.tokenize(["cat"]))
    encoder.expand_vocabulary()
    encoder.expand_vocabulary(0.0)  # nothing is compact any more: nothing to decay
    assert all(torch.equal(before[name], value) for name, value in weights(encoder.module).items())


def test_a_table_that_is_used_whole():
    embedding = torch.nn.Embedding(4, 2)
    before = embedding.weight.detach().clone()
    vocabulary = Vocabulary(embedding, torch.tensor([[3, 1], [2, 0]]))
    assert torch.equal(embedding.weight, before)
    vocabulary.expand(0.0)
    assert torch.equal(embedding.weight, before)
