"""Training: schedules, the training loop, and the pairing of f and g."""
