"""Backups: taking them while the cluster runs, listing and pruning them, and restoring from them."""
