"""The suites, one file each: `measure(folder, rounds, before)` gives rows."""
