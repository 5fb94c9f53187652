"""The page and the tables of `clipmem reproduce`: what was claimed, what came out, and the published curve beside it."""
