"""Anything at all as input: an answer or a sentence, soon, and never a traceback."""
