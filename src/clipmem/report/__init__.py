"""Reports of a run folder: a page that opens offline, and tables for the terminal. Tables in, files out, no torch.

`clipmem.report.page` draws figures and so loads matplotlib; `clipmem.report.terminal` and `clipmem.report.gallery` do not.
"""
