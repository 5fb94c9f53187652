"""Exported view folders of synthetic pairs, of any size: what the page gets, in one place."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import clipmem

STATIC = Path(clipmem.__file__).parent / "report" / "explorer" / "static"
ROLES = ["candidate", "external", "independent", "shared"]
WORDS = re.findall(
    r"\w+",
    """a an the red blue green small large old young happy cat dog bird horse tree house street car bus train boat river
    mountain beach child woman man player ball table chair cake pizza phone clock window flag snow grass night""",
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="clipmem" content="export">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'self'{file}; style-src 'self'{file};
 img-src 'self' data: blob:{file}; connect-src 'self'">
<title>view</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="app.css">
</head>
<body><div id="app"></div><script src="app.js"></script></body>
</html>
"""


def about(name: str, kind: str, group: str, label: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a column's entry in the manifest."""
    return {"name": name, "label": label or name, "about": "", "group": group, "type": kind, "error": None, **more}


def captions_of(rows: int, rng: np.random.Generator, unique: float = 0.8) -> list[str]:
    """Draw captions of 5 to 14 words; some are used several times."""
    drawn = rng.integers(0, len(WORDS), (max(1, int(rows * unique)), 14))
    sizes = rng.integers(5, 15, len(drawn))
    texts = [" ".join(WORDS[k] for k in line[:size]) for line, size in zip(drawn.tolist(), sizes, strict=True)]
    return [texts[k] for k in rng.integers(0, len(texts), rows)]


def columns_of(rows: int, seed: int = 0) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    """Draw the scores, roles and flags of pairs; mismatched pairs have high scores."""
    rng = np.random.default_rng(seed)
    role, planted = rng.integers(0, 4, rows).astype(np.uint8), (rng.random(rows) < 0.05).astype(np.uint8)
    g = rng.normal(0.3, 0.12, rows) - 0.25 * planted
    score = rng.normal(0, 0.06, rows) + 0.15 * (role == 0) + 0.5 * planted * (role == 0)
    numbers = {
        "clipmem": score, "stderr": np.abs(rng.normal(0.03, 0.01, rows)), "g_alignment": g, "f_alignment": g + score,
        "learned": rng.normal(0.1, 0.1, rows), "retrieval_score": rng.random(rows),
        "words_score": rng.random(rows) + planted, "clipmem_other": 0.6 * score + rng.normal(0, 0.05, rows),
        "pca_x": rng.normal(0, 1, rows), "pca_y": rng.normal(0, 2, rows),
    }  # fmt: skip
    numbers["clipmem_change"] = score - numbers["clipmem_other"]
    numbers["words_score"][rng.random(rows) < 0.1] = np.nan
    groups = {"retrieval_score": "detector", "words_score": "detector", "clipmem_other": "compare"}
    groups |= {"clipmem_change": "compare", "pca_x": "map", "pca_y": "map"}
    labels = {"clipmem": "CLIPMem", "g_alignment": "A(g)", "f_alignment": "A(f)", "retrieval_score": "Retrieval"}
    labels |= {"words_score": "Words", "clipmem_other": "CLIPMem, other run", "clipmem_change": "Change of CLIPMem"}
    found: dict[str, tuple[dict[str, Any], np.ndarray]] = {}
    for name, drawn in numbers.items():
        values = drawn.astype("<f4")
        ends = {"min": float(np.nanmin(values)), "max": float(np.nanmax(values))}
        errors = {"error": "stderr", "floor": True} if name == "clipmem" else {}
        entry = about(name, "f32", groups.get(name, "score"), labels.get(name), **ends) | errors
        found[name] = entry, values
    found["role"] = about("role", "category", "pair", "Role", categories=ROLES, codes="u8"), role
    found["planted"] = about("planted", "bool", "pair", "Planted"), planted
    found["image_group"] = about("image_group", "i32", "pair"), (np.arange(rows) // 3).astype("<i4")
    return found


def text_column(texts: Sequence[str]) -> tuple[np.ndarray, bytes]:
    """Return the codes of texts and their unique ones, joined."""
    codes = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    return np.array([codes[text] for text in texts], "<i4"), "\0".join(codes).encode()


def detail(row: int, captions: str, columns: dict[str, tuple[dict[str, Any], np.ndarray]], rows: int) -> dict[str, Any]:
    """Return the detail of a pair, with the rows after it as neighbors."""
    f, g = (float(columns[name][1][row]) for name in ("f_alignment", "g_alignment"))
    near = [{"row": (row + k) % rows, "similarity": 1 - k / 20} for k in range(1, 11)]
    far = [{"row": (row + 2 * k) % rows, "similarity": 1 - k / 20} for k in range(1, 11)]
    reason = "Other pairs with this image have another caption."
    return {
        "row": row, "uid": f"{row:032x}",
        "captions": [{"text": captions, "trained": True}, {"text": "another", "trained": False}],
        "role": ROLES[columns["role"][1][row]], "planted": bool(columns["planted"][1][row]), "caption_from": None,
        "seeds": [{"seed": seed, "f": f + 0.02 * seed, "g": g - 0.01 * seed} for seed in (0, 1)],
        "parts": {side: {"positive": value + 0.2, "image_bank": 0.1} for side, value in (("f", f), ("g", g))},
        "detectors": [{"name": "words", "label": "Words", "score": 0.4, "rank": row + 1, "reason": reason}],
        "credit": "Drawn for a test", "source": f"pair-{row}.webp",
        "neighbors": {space: {"f": near, "g": far} for space in ("image", "text")},
    }  # fmt: skip


def write_view(
    folder: Path,
    rows: int,
    captions: Sequence[str] | None = None,
    images: int = 0,
    file: bool = True,
    picks: dict[str, list[str]] | None = None,
    others: Sequence[str] | None = None,
    numbers: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write an export of pairs; the first `images` rows have thumbnails. `file` allows what file:// needs.

    `picks` are the values that are chosen when the page opens; `others` captions that the pairs were not trained with;
    `numbers` the values of columns that are not drawn.
    """
    columns = columns_of(rows)
    for name, values in (numbers or {}).items():
        ends = {"min": float(values.min()), "max": float(values.max())}
        columns[name] = columns[name][0] | ends, values.astype("<f4")
    texts = list(captions or captions_of(rows, np.random.default_rng(1)))
    codes, strings = text_column(texts)
    columns["captions"] = about("captions", "text", "pair", "Captions"), codes
    if others is not None:
        both = [f"{text}\x1f{other}" for text, other in zip(texts, others, strict=True)]
        all_codes, all_strings = text_column(both)
        columns["all_captions"] = about("all_captions", "text", "pair", "All captions"), all_codes
    uids = np.zeros((rows, 4), ">u4")
    uids[:, 3] = np.arange(rows)
    columns["uid"] = about("uid", "uid", "pair"), uids
    diagonal = {
        "label": "alignment with and without training",
        "x": "g_alignment",
        "y": "f_alignment",
        "diagonal": True,
    }
    manifest = {
        "format": 1, "clipmem": "0", "title": "synthetic", "rows": rows, "source": "run", "hash": f"synthetic-{rows}",
        "noise_floor": 0.04, "noise_center": 0.0, "axes": ["clipmem", "retrieval_score"], "picks": picks or {},
        "columns": [entry for entry, _ in columns.values()], "sort": {"column": "clipmem", "descending": True},
        "maps": [diagonal, {"label": "PCA of image embeddings", "x": "pca_x", "y": "pca_y"}], "sides": ["f", "g"],
        "neighbors": True, "thumbnails": images > 0, "details": True, "credits": ["Drawn for a test"],
        "compare": {"title": "other", "change": "clipmem_change", "pairs": [["clipmem", "clipmem_other"]]},
        "marks": ["wrong", "memorized", "fine", "unsure"],
    }  # fmt: skip
    for name in ("columns", "details"):
        (folder / "data" / name).mkdir(parents=True, exist_ok=True)
    _script(folder, "manifest", manifest)
    for name, (_, values) in columns.items():
        _script(folder, f"columns/{name}", base64.b64encode(values.tobytes()).decode())
    _script(folder, "columns/captions.strings", base64.b64encode(strings).decode())
    if others is not None:
        _script(folder, "columns/all_captions.strings", base64.b64encode(all_strings).decode())
    for start in range(0, min(rows, 2560), 256):
        block = [detail(row, texts[row], columns, rows) for row in range(start, min(rows, start + 256))]
        _script(folder, f"details/{start // 256}", block)
    (folder / "thumbs").mkdir(exist_ok=True)
    for row in range(images):
        _thumbnail(row).save(folder / "thumbs" / f"{row}.webp")
    for name in ("app.js", "app.css"):
        (folder / name).write_bytes((STATIC / name).read_bytes())
    (folder / "index.html").write_text(PAGE.replace("{file}", " file:" if file else ""), encoding="utf-8")
    return folder / "index.html"


def _script(folder: Path, name: str, payload: Any) -> None:
    text = f"clipmemData({json.dumps(name)},{json.dumps(payload)});\n"
    (folder / "data" / f"{name}.js").write_text(text, encoding="utf-8")


def _thumbnail(row: int) -> Image.Image:
    image = Image.new("RGB", (256, 192), f"hsl({row * 47 % 360},40%,85%)")
    draw = ImageDraw.Draw(image)
    corners = (40 + row % 50, 30, 160 + row % 70, 160)
    (draw.ellipse if row % 2 else draw.rectangle)(corners, fill=f"hsl({row * 101 % 360},60%,45%)")
    return image
