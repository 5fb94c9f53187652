"""The report section `caption-length`: a histogram of caption lengths against scores."""

import polars as pl

from clipmem.report.sections import Section

WIDTH = 4  # characters a band


class CaptionLength(Section):
    """How many characters captions have, and the mean score of each length."""

    nav, order, screen = "Caption length", 45, "report"
    template = """{% from "parts.html" import section %}
{% call section(section_id, "Long captions and short ones") %}
<ul>
{% for band in bands %}
<li>from {{ band.low }} characters: {{ band.n }} pairs, mean {{ band.mean | signed }} {{ "#" * band.n }}</li>
{% endfor %}
</ul>
{% endcall %}"""
    terminal = "Caption lengths: from {{ bands[0].low }} to {{ bands[-1].low }} characters\n"

    def data(self, subject):
        low = pl.col("captions").list.first().str.len_chars() // WIDTH * WIDTH
        rows = subject.scores.join(subject.pairs.select("uid", low=low), on="uid")
        bands = rows.group_by("low").agg(pl.len().alias("n"), pl.col("clipmem").mean().alias("mean"))
        return {"bands": bands.sort("low").to_dicts()}
