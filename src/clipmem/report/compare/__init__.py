"""`clipmem compare`: memorization against utility and cost of finished runs, over the seeds that they share."""
