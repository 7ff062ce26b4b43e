"""The audit logs of all processes, as the log service looks after them."""
