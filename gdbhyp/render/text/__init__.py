"""One text renderer a kind of report, named for it; ``render(report, style)`` yields lines."""
