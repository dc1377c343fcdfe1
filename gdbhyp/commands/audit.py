"""``hyp-audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gdbhyp.commands.declaration import Argument, Command, Context
from gdbhyp.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

_SEVERITIES = ("critical", "high", "medium", "low", "note")


def _run(context: Context, arguments: Namespace) -> Any:
    from dataclasses import replace

    from gdbhyp.analyses.audit import ignore, run

    if arguments.list:
        return run.rules_report()
    if arguments.sarif and arguments.json:
        raise UsageError("--sarif is JSON already: leave out --json")
    known = ignore.read_ignore_file(arguments.ignore) if arguments.ignore else []
    report = run.audit(
        context.stop(),
        rules=arguments.rule or [],
        known=known,
        fail_on=arguments.fail_on,
        verbose=arguments.verbose,
    )
    return replace(report, sarif=True) if arguments.sarif else report


COMMAND = Command(
    name="audit",
    summary="Look for what breaks isolation: rules over every translation table and the registers of EL2.",
    run=_run,
    arguments=(
        Argument(
            ("--rule",), "judge only this rule; may be given again", "text", metavar="NAME", repeated=True
        ),
        Argument(("--list",), "list the rules, with their reasons and references"),
        Argument(
            ("--ignore",),
            'findings that are known: lines of RULE [0xSTART-0xEND] ["PART OF ITS MESSAGE"] # REASON',
            "path",
            metavar="FILE",
        ),
        Argument(
            ("--fail-on",),
            "end with status 1 if there is a finding as severe as this, or worse",
            "choice",
            choices=_SEVERITIES,
        ),
        Argument(("--sarif",), "print the findings in SARIF 2.1.0, for code scanning"),
        Argument(("-v", "--verbose"), "also say for each finding why it matters, and list all evidence"),
    ),
    description="""
Every finding says what was compared, how bad it would be, what would make it right where that is known, and shows
the descriptors (address and value) and registers that it stands on. What could not be judged is listed with the
reason, so that no finding means what it says. Only VMs that are known are compared: hyp-vms lists them.
""",
)
