"""What the tests that look at a server from outside share: they know its URL and nothing else about it."""
