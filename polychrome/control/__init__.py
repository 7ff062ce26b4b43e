"""Commands that call the control API of a running cluster, `/polychrome/v1`: keys and tenants."""
