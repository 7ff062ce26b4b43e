"""The work on erasures: what is deleted is removed from the log, the bucket, the catalog's copies and the caches."""
