"""`polychrome audit`: proves the audit logs in a bucket, and searches them."""
