"""Generate four images for the first caption of each image with a diffusion model, before a study.

Run it in the folder of captions.csv (columns image and caption), with a downloaded pipeline in models/my-pipeline
(`pip install diffusers`). It writes generated/NAME-0.png to NAME-3.png. `with_generated.py` reads them.
"""

from pathlib import Path

import polars as pl
import torch
from diffusers import DiffusionPipeline

draw = DiffusionPipeline.from_pretrained("models/my-pipeline")
Path("generated").mkdir()
captions = pl.read_csv("captions.csv").unique("image", keep="first", maintain_order=True)
for image, caption in captions.select("image", "caption").iter_rows():
    for number in range(4):
        seed = torch.Generator().manual_seed(number)
        draw(caption, generator=seed).images[0].save(f"generated/{Path(image).stem}-{number}.png")
