"""The suites, one file each: `measure(folder, rounds, before, device, smallest)` returns rows."""
