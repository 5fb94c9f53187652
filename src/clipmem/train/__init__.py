"""Training: schedules, the loop, and the pairing of f and g."""
