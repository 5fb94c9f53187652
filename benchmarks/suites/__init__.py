"""The suites, one file each: `measure(folder, device, rounds, before)` gives rows."""
