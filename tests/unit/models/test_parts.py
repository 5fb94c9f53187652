"""Names of parts, patterns of them, and the rate of each layer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipmem.base.errors import InputError
from clipmem.models import openclip
from clipmem.models.parts import Part, chosen, part_of, rate_factors
from clipmem.models.start import parts_of, table_of_parts


@pytest.fixture(scope="module")
def micro():
    return openclip.create("clipmem-micro", seed=7)


@pytest.mark.parametrize(
    ("name", "image", "part"),
    [
        ("visual.conv1.weight", True, "image.embeddings"),
        ("visual.transformer.resblocks.11.mlp.c_fc.weight", True, "image.blocks.11"),
        ("visual.layer3.0.bn1.weight", True, "image.blocks.3"),
        ("visual.attnpool.positional_embedding", True, "image.head"),
        ("visual.trunk.stages.2.blocks.7.norm.weight", True, "image.blocks.2"),
        ("visual.trunk.blocks.7.norm1.weight", True, "image.blocks.7"),
        ("visual.trunk.patch_embed.proj.weight", True, "image.embeddings"),
        ("visual.proj", True, "image.head"),
        ("vision_model.pre_layrnorm.bias", True, "image.embeddings"),
        ("vision_model.encoder.layers.5.self_attn.q_proj.weight", True, "image.blocks.5"),
        ("vision_model.post_layernorm.bias", True, "image.head"),
        ("token_embedding.weight", False, "text.embeddings"),
        ("text.transformer.encoder.layer.4.output.dense.weight", False, "text.blocks.4"),
        ("text_projection", False, "text.head"),
        ("logit_scale", False, "logit_scale"),
        ("logit_bias", False, "logit_bias"),
    ],
)
def test_part_of_a_parameter(name, image, part):
    assert str(part_of(name, image=image)) == part


def test_parts_cover_every_parameter_once(micro):
    rows = table_of_parts(micro)
    names = [name for row in rows for name in row["names"]]
    assert sorted(names) == sorted(dict(micro.module.named_parameters()))
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in micro.module.parameters())
    order = [row["part"] for row in rows]
    assert order[0] == "image.embeddings"
    assert order[-1] == "logit_scale"
    assert order.index("image.head") < order.index("text.embeddings") < order.index("text.blocks.0")


@pytest.mark.parametrize(
    ("patterns", "count"),
    [(["image"], None), (["blocks"], None), (["image.blocks.0-0"], 12), (["logit_scale"], 1), (["blocks.0"], 24)],
)
def test_patterns_choose_parameters(micro, patterns, count):
    of = parts_of(micro)
    found = chosen(of, patterns, "freeze")
    wanted = {
        "image": {n for n in of if n.startswith("visual.")},
        "blocks": {n for n in of if "resblocks" in n},
    }.get(patterns[0])
    assert found == wanted if wanted else len(found) == count


@pytest.mark.parametrize("pattern", ["imag", "image.blocks.7", "image.blocks.3-2", "text.block", "logit"])
def test_unknown_parts_are_refused(micro, pattern):
    with pytest.raises(InputError) as error:
        chosen(parts_of(micro), ["text", pattern], "[train] freeze")
    assert error.value.what == "[train] freeze"
    assert repr(pattern) in error.value.got


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.1, 1))
def test_rate_factors_equal_the_equation(image, text, decay):
    of = {}
    for tower, depth in (("image", image), ("text", text)):
        for kind in ("embeddings", "head"):
            of[f"{tower} {kind}"] = Part(tower, kind)
        for block in range(depth):
            of[f"{tower} {block}"] = Part(tower, "blocks", block)
    of["logit_scale"] = Part("", "logit_scale")
    found = rate_factors(of, decay)
    for tower, depth in (("image", image), ("text", text)):
        assert found[f"{tower} head"] == 1
        assert found[f"{tower} embeddings"] == pytest.approx(decay ** (depth + 1))
        for block in range(depth):
            assert found[f"{tower} {block}"] == pytest.approx(decay ** (depth - block))
    assert found["logit_scale"] == 1
    assert set(rate_factors(of, 1.0).values()) == {1.0}
