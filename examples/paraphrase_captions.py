"""Paraphrase captions with an instruction-tuned language model of transformers (`pip install '.[hf]'`), before a study.

Run it in the folder of captions.csv (columns image and caption), with a downloaded model in models/my-model. It writes
paraphrased.csv with three paraphrases after each caption. Rows with the same image are merged in their order, so the
first caption of a pair stays the first.
"""

import polars as pl
from transformers import pipeline, set_seed

set_seed(0)
write = pipeline("text-generation", model="models/my-model")
prompt = "Caption: {}\nThe same caption in other words:"
rows = []
for image, caption in pl.read_csv("captions.csv").select("image", "caption").iter_rows():
    outputs = write(
        prompt.format(caption), num_return_sequences=3, do_sample=True, max_new_tokens=40, return_full_text=False
    )
    texts = [output["generated_text"].strip().split("\n")[0] for output in outputs]
    rows += [(image, text) for text in [caption, *texts] if text]
pl.DataFrame(rows, schema=["image", "caption"], orient="row").write_csv("paraphrased.csv")
