"""Reports as text and JSON: the only room that chooses a width, a colour or a heading."""
