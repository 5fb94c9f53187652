"""Odd and hostile input, generated from a seed, typed at the command line as a user would meet it."""
