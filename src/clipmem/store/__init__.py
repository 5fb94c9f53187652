"""Files: content hashes, atomic writes, table schemas, the manifest and the run folder. No torch."""
