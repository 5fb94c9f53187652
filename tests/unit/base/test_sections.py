"""Numbers that nobody can mean are refused by the recipe itself, whatever key they are given for."""

import time
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from clipmem.base.errors import InputError
from clipmem.base.recipes import Recipe, load_recipe


def kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    yield get_origin(annotation) or annotation
    for one in inner:
        yield from kinds(one)


def numeric(table: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Every key that holds a number or several, with a pattern to write a value in: from the fields themselves."""
    for name, field in table.model_fields.items():
        found = set(kinds(field.annotation))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numeric(field.annotation, f"{path}{name}.")
        elif found & {int, float}:
            several = len(field.default) if tuple in found else 0
            yield f"{path}{name}", f"[{', '.join(['{}'] * several)}]" if several else "{}"


KEYS = dict(numeric(Recipe))


def test_the_keys_are_found():
    assert len(KEYS) > 50
    expected = {"train.seeds", "train.epochs", "score.draws", "mitigate.text_noise.std", "evaluate.probe_c"}
    assert expected <= set(KEYS)
    assert not {"data.path", "split.near_duplicates", "train.objective", "mitigate.caption_variants.kinds"} & set(KEYS)


@pytest.mark.parametrize("value", [10**26, -1])
@pytest.mark.parametrize("key", KEYS)
def test_absurd_numbers_are_refused_at_once(key, value):
    times = list[float]()
    while not times or (times[-1] >= 0.5 and len(times) < 3):  # garbage of earlier tests may be collected meanwhile
        began = time.process_time()
        with pytest.raises(InputError) as caught:
            load_recipe("", [f"{key}={KEYS[key].format(*[value] * 9)}"])
        times.append(time.process_time() - began)
    assert min(times) < 0.5
    assert key.split(".")[-1] in caught.value.what
    assert str(value) in caught.value.got
    assert caught.value.expected
    assert caught.value.hint


@pytest.mark.parametrize("key", ["train.seeds", "evaluate.probe_c", "dejavu.fractions"])
def test_lists_have_a_largest_length(key):
    with pytest.raises(InputError) as caught:
        load_recipe("", [f"{key}={[*range(1, 2_002)]}"])
    assert key.split(".")[-1] in caught.value.what
