"""What a log's syndrome says, in lines that stand out from the log and that ``grep -v '^    => '`` takes out."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.annotate import Decoded
from gdbhyp.render.style import Style

MARK = "    => "


def row(decoded: Decoded, style: Style) -> Iterator[str]:
    """Yield the lines of an annotation: the syndrome in a sentence, then the notes."""
    said = decoded.said
    register = style.paint("name", f"ESR_EL{said.el}")
    yield f"{MARK}{register} {decoded.found.esr:#x}: {style.paint('heading', said.explanation.summary)}"
    for note in said.notes:
        yield f"{MARK}  {style.paint('note', note)}"
