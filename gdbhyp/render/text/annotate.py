"""What a log's syndrome says, in lines that stand out from the log and that ``grep -v '^    => '`` takes out."""

from __future__ import annotations

from collections.abc import Iterator

from gdbhyp.analyses.annotate import Annotation
from gdbhyp.render.style import Style

MARK = "    => "


def row(annotation: Annotation, style: Style) -> Iterator[str]:
    """Yield the lines of an annotation: the syndrome in a sentence, then the notes."""
    syndrome = annotation.syndrome
    register = style.paint("name", f"ESR_EL{syndrome.el}")
    yield f"{MARK}{register} {syndrome.esr:#x}: {style.paint('heading', syndrome.summary)}"
    for note in annotation.notes:
        yield f"{MARK}  {style.paint('note', note)}"
