"""All commands, in the order in which help lists them."""

from __future__ import annotations

from gdbhyp.commands import (
    annotate,
    at,
    audit,
    catch,
    diff,
    esr,
    find,
    info,
    ipa,
    map,
    reg,
    selftest,
    snapshot,
    status,
    symbols,
    trace,
    walk,
)
from gdbhyp.commands.declaration import Command
from gdbhyp.commands.offline import offline, with_dump

COMMANDS: tuple[Command, ...] = (
    status.COMMAND,
    offline(status.COMMAND),
    esr.COMMAND,
    with_dump(esr.COMMAND),
    reg.COMMAND,
    with_dump(reg.COMMAND),
    ipa.COMMAND,
    offline(ipa.COMMAND),
    walk.COMMAND,
    offline(walk.COMMAND),
    at.LIVE,
    at.BATCH,
    map.COMMAND,
    offline(map.COMMAND),
    find.COMMAND,
    offline(find.COMMAND),
    diff.COMMAND,
    diff.OFFLINE,
    audit.COMMAND,
    offline(audit.COMMAND),
    symbols.COMMAND,
    offline(symbols.COMMAND),
    trace.COMMAND,
    trace.OFFLINE,
    catch.COMMAND,
    info.COMMAND,
    snapshot.COMMAND,
    offline(snapshot.COMMAND),
    annotate.COMMAND,
    selftest.COMMAND,
)
