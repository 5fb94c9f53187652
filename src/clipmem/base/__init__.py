"""What every other room may use: errors, the random-number tree, recipes, the registry. No torch, opens no files."""
