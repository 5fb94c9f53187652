"""Pages that open offline, and terminal screens, of what finished runs hold. No torch.

`clipmem.report.page` draws figures and so loads matplotlib; `clipmem.report.terminal` and `clipmem.report.gallery` do
not.
"""
