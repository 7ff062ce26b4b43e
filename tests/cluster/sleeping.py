"""A program that does nothing, for long."""

import time

time.sleep(600)
