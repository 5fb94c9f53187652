"""Reports of a run folder: a page that opens offline, tables for the terminal. No torch.

`clipmem.report.page` draws figures and so loads matplotlib; `clipmem.report.terminal` and
`clipmem.report.gallery` do not.
"""
