"""JSON lines, COCO's and Karpathy's documents, Flickr's text: whole, odd, cut off."""

import json
import random
from collections.abc import Iterator

from tests.hostile.case import ACCEPTED, EITHER, REFUSED, Case, group
from tests.hostile.tables import IMAGES, inspect, joined, with_images


def _karpathy(first: object) -> dict[str, object]:
    """Write a document whose first image has other sentences than the rest."""
    sentences = [first, *([{"raw": f"thing {k}"}] for k in range(1, IMAGES))]
    return {"images": [{"filename": f"{k}.png", "split": "train", "sentences": own} for k, own in enumerate(sentences)]}


@group("JSON lines and documents")
def json_cases(rng: random.Random) -> Iterator[Case]:
    """JSON lines, COCO's and Karpathy's documents, and what is almost one."""
    lines = [json.dumps({"image": f"{k}.png", "caption": f"thing {k}"}) for k in range(IMAGES)]
    damaged: dict[str, str] = {
        "line that is not JSON": "{broken",
        "a line that is a list": "[1, 2]",
        "a line that is a number": "3",
        "a caption that is a number": '{"image": "3.png", "caption": 7}',
        "a caption that is null": '{"image": "3.png", "caption": null}',
        "captions that are nested": '{"image": "3.png", "caption": [[["x"]]]}',
        "an image that is a list": '{"image": ["3.png"], "caption": "x"}',
        "a lone surrogate": '{"image": "3.png", "caption": "\\ud800"}',
        "deep nesting": '{"image": "3.png", "caption": ' + "[" * 20_000 + "]" * 20_000 + "}",
        "a number of 10,000 digits": '{"image": "3.png", "caption": ' + "9" * 10_000 + "}",
        "a row without an image": '{"caption": "x"}',
        "keys twice": '{"image": "0.png", "image": "3.png", "caption": "x"}',
    }
    for name, line in damaged.items():
        text = "\n".join([*lines[:3], line, *lines[4:]]) + "\n"
        yield Case(name, inspect("pairs.jsonl"), with_images("pairs.jsonl", text.encode()), ACCEPTED, IMAGES)
    for setting in ("data.caption_column=nope", "data.image_column=nope"):
        yield Case(
            f"JSON lines, --set {setting}",
            inspect("pairs.jsonl", setting),
            with_images("pairs.jsonl", "\n".join(lines).encode()),
        )
    images = [{"id": k, "file_name": f"{k}.png"} for k in range(IMAGES)]
    annotations = [{"id": k, "image_id": k, "caption": f"thing {k}"} for k in range(IMAGES)]
    boxes = [{"image_id": 0, "bbox": [1, 2, 3, 4], "category_id": 1}]
    stray = [*annotations, {"image_id": 99, "caption": "x"}]
    documents: dict[str, tuple[object, frozenset[int], int | None]] = {
        "COCO": ({"images": images, "annotations": annotations}, ACCEPTED, IMAGES),
        "COCO, an annotation of no image": ({"images": images, "annotations": stray}, ACCEPTED, IMAGES + 1),
        "COCO, an image without annotation": ({"images": images, "annotations": annotations[:-1]}, ACCEPTED, IMAGES),
        "COCO, an image id twice": ({"images": [*images, images[0]], "annotations": annotations}, EITHER, None),
        "COCO, ids that are texts": (
            {"images": [one | {"id": str(one["id"])} for one in images], "annotations": annotations},
            EITHER,
            None,
        ),
        "COCO, no annotations": ({"images": images, "annotations": []}, REFUSED, None),
        "COCO, annotations that are null": ({"images": images, "annotations": None}, REFUSED, None),
        "COCO, images that are texts": ({"images": ["a", "b"], "annotations": annotations}, REFUSED, None),
        "COCO of boxes": ({"images": images, "annotations": boxes}, REFUSED, None),
        "Karpathy": (_karpathy([{"raw": "x"}]), ACCEPTED, IMAGES),
        "Karpathy, sentences that are null": (_karpathy(None), ACCEPTED, IMAGES),
        "an empty object": ({}, REFUSED, None),
        "a list": ([1, 2, 3], REFUSED, None),
        "null": (None, REFUSED, None),
    }
    for name, (document, ends, records) in documents.items():
        yield Case(name, inspect("data.json"), with_images("data.json", json.dumps(document).encode()), ends, records)
    whole = json.dumps(documents["COCO"][0])
    for share in sorted(rng.sample(range(1, len(whole)), 4)):
        yield Case(
            f"COCO cut off at byte {share}", inspect("data.json"), with_images("data.json", whole[:share].encode())
        )
    yield Case(
        "COCO of split train", inspect("data.json", "data.split=train"), with_images("data.json", whole.encode())
    )
    yield Case(
        "COCO with a caption column",
        inspect("data.json", "data.caption_column=nope"),
        with_images("data.json", whole.encode()),
    )


@group("Flickr's text")
def flickr_cases(rng: random.Random) -> Iterator[Case]:
    """Lines of NAME#0 and a tab, of bars, of commas."""
    token = [f"{k}.png#0\tthing {k}" for k in range(IMAGES)]
    bars = ["image_name| comment_number| comment", *(f"{k}.png| 0| thing {k}" for k in range(IMAGES))]
    commas = ["image,caption", *(f"{k}.png,thing {k}" for k in range(IMAGES))]
    for name, lines in {"tabs": token, "bars": bars, "commas": commas}.items():
        data = joined(lines)
        yield Case(f"{name}, whole", inspect("captions.txt"), with_images("captions.txt", data), ACCEPTED, IMAGES)
        broken = [*lines[:4], "a line without anything", *lines[4:]]
        yield Case(
            f"{name}, a stray line",
            inspect("captions.txt"),
            with_images("captions.txt", joined(broken)),
            ACCEPTED,
            IMAGES + 1,
        )
        cut = data[: rng.randrange(len(data) // 2, len(data) - 2)]
        yield Case(f"{name}, cut off", inspect("captions.txt"), with_images("captions.txt", cut), ACCEPTED)
        yield Case(
            f"{name}, --set data.caption_column=nope",
            inspect("captions.txt", "data.caption_column=nope"),
            with_images("captions.txt", data),
        )
    odd = [*token[:3], '3.png#0\t"an open quote', *token[4:]]
    yield Case(
        "tabs, an open quote", inspect("captions.txt"), with_images("captions.txt", joined(odd)), ACCEPTED, IMAGES
    )
    odd = [*commas[:3], '2.png,"an open quote', *commas[4:]]
    yield Case(
        "commas, an open quote", inspect("captions.txt"), with_images("captions.txt", joined(odd)), ACCEPTED, IMAGES
    )
    odd = ["foo,bar", *commas[1:]]
    yield Case("commas, header foo,bar", inspect("captions.txt"), with_images("captions.txt", joined(odd)), REFUSED)
    yield Case(
        "commas, no header", inspect("captions.txt"), with_images("captions.txt", joined(commas[1:])), EITHER, IMAGES
    )
