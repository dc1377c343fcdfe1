"""Readers that are not GDB: files as the physical memory of a machine."""
