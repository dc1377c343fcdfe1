"""Questions: a stopped CPU or a value in, a frozen report out. A file per question."""
