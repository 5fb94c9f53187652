"""What the warm start of the finding `encoders` has read: `python experiments/reproduce/warm_start.py`.

Splits both studies of `unique` and `redundant` as the finding does, without a training worth the name, and prints the
share of the study's captions, the trained first ones, that the warm start trains on, and the share of the text tower's
weights that are its token table.
"""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl

import clipmem
from clipmem.base.folder import RunFolder
from clipmem.base.recipes import as_settings
from clipmem.models import openclip
from clipmem_reproduce.scales import SCALES

_QUICK = ("model.name=clipmem-micro", "train.epochs=1", "train.seeds=[0]", "evaluate.probe_c=[0.1]")


def captions(place: str, base: Path, *settings: str, roles: tuple[str, ...]) -> list[str]:
    """Return the first captions of the pairs of some roles."""
    folder = RunFolder(clipmem.run(base, place, settings=[*settings, *_QUICK]).path)
    drawn = folder.read("splits").filter(pl.col("role").is_in(roles)).select("uid")
    return [own[0] for own in folder.read("pairs").join(drawn, on="uid", how="semi")["captions"].to_list()]


def main() -> None:
    """Print the shares."""
    for regime in ("unique", "redundant"):
        base = Path(__file__).parent / regime / "base.toml"
        with tempfile.TemporaryDirectory() as folder:
            warmed = as_settings(SCALES[regime, "laptop"].warmed)
            read = set(captions(f"{folder}/warm", base, *warmed, roles=("shared", "candidate")))
            study = captions(f"{folder}/study", base, roles=("candidate", "independent"))
        print(f"{regime}: {sum(one in read for one in study) / len(study):.0%} of {len(study):,} captions")
    module: Any = openclip.create("clipmem-tiny", seed=0).module
    text = sum(one.numel() for name, one in module.named_parameters() if not name.startswith(("visual.", "logit")))
    image, table = sum(one.numel() for one in module.visual.parameters()), module.token_embedding.weight.numel()
    print(f"M weights: text {text / 1e6:.2f} ({table / text:.0%} in the token table), image {image / 1e6:.2f}")


if __name__ == "__main__":
    main()
