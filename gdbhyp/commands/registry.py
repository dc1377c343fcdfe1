"""All commands, in the order in which help lists them."""

from __future__ import annotations

from gdbhyp.commands import annotate, at, esr, ipa, map, reg, status, trace, walk
from gdbhyp.commands.declaration import Command
from gdbhyp.commands.offline import offline

COMMANDS: tuple[Command, ...] = (
    status.COMMAND,
    esr.COMMAND,
    reg.COMMAND,
    ipa.COMMAND,
    walk.COMMAND,
    offline(walk.COMMAND),
    at.LIVE,
    at.BATCH,
    map.COMMAND,
    offline(map.COMMAND),
    trace.COMMAND,
    trace.OFFLINE,
    annotate.COMMAND,
)
