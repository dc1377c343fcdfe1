"""Moving the demo hypervisor to where a test wants it."""

from __future__ import annotations

from typing import Any

from support.gdb_session import GdbSession


def run_to(session: GdbSession, site: Any) -> None:
    """Continue to the EL2 vector for one of the guest's traps; ``site`` is one of truth.json's."""
    session.run(
        f"tbreak el1_sync if $ELR_EL2 == {site['elr']} && $ESR_EL2 == {site['esr']}"
        f" && $VTTBR_EL2 >> 48 == {site['vmid']}"
    )
    session.run("continue")
