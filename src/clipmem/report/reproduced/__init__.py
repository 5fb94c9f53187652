"""The page and the tables of `clipmem reproduce`: claims, what came out, and the published curves beside it."""
