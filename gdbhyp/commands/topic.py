"""``hyp-help``: pages about the architecture and about working with gdbhyp; ``gdbhyp help TOPIC`` prints them too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context

if TYPE_CHECKING:
    from argparse import Namespace

_FOLDER = Path(__file__).with_name("topics")

# In the order in which they are listed; each is a file of the folder.
TOPICS = (
    *("stage2", "sl0", "concatenation", "hpfar", "vhe", "worlds"),
    *("expressions", "tutorial", "habits", "stubs", "ide"),
)


def source(topic: str) -> str:
    """Return the text of a page, with what is to be filled in."""
    return (_FOLDER / f"{topic}.txt").read_text(encoding="utf-8").rstrip("\n")


def page(topic: str) -> str:
    """Return a page without what it says of a CPU."""
    return source(topic).partition("\nHere:\n")[0].rstrip()


def _run(context: Context, arguments: Namespace) -> Any:
    from gdbhyp.analyses import topic

    if arguments.topic is None:
        return topic.TopicList(tuple(topic.TopicRow(t, source(t).partition("\n")[0]) for t in TOPICS))
    return topic.page(arguments.topic, source(arguments.topic), context.stop)


COMMAND = Command(
    name="help",
    summary="Explain a topic in a screen, with the values that the CPU has now.",
    run=_run,
    arguments=(
        Argument(
            ("topic",),
            "the topic; without one, all are listed",
            metavar="TOPIC",
            choices=TOPICS,
            optional=True,
        ),
    ),
    description="""
The pages about the architecture (stage 2, SL0, concatenated tables, HPFAR_EL2, VHE, worlds) end with what they mean for
the selected CPU, if there is one. The others are about gdbhyp: expressions, a tutorial that finds a bug, what to type
instead of what other tools know, other stubs, IDEs.
""",
)
