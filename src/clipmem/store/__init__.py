"""Content hashes, atomic writes, table schemas, the manifest and the run folder. Imports no torch."""
