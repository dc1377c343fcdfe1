"""The architecture as data and arithmetic: no I/O, no printing, nothing outside the standard library."""
