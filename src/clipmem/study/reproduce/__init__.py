"""`clipmem reproduce`: the published experiments, one file a finding, and whether each holds on these data.

A finding names the runs that it needs and turns them into effects with intervals over paired seeds; runs that several
findings need are made once. What a verdict means is in `functional.verdict` and docs/reproduce.md.
"""
