"""`polychrome verify` and `polychrome repair`: proving that what is stored is what was written, and repairing what
can be repaired.
"""
