"""Scoring with models that exist, outside a study: `clipmem score`, `clipmem embed` and `clipmem.score`.

Pairs go through in blocks: pictures are decoded, embedded with every model, reduced to three numbers a model, and
written. Nothing but the list of pairs and that table grows with the data.
"""
