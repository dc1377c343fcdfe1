"""The whole reference, as text and as a manual page, from the declarations that everything else is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from gdbhyp.commands.declaration import EVERYWHERE, Argument, Command
from gdbhyp.commands.help import entry_texts, example_text, help_text
from gdbhyp.commands.parameters import PARAMETERS, Parameter
from gdbhyp.commands.topic import TOPICS, page

_INTRODUCTION = """\
gdbhyp makes GDB understand AArch64 hypervisors: why the CPU is in EL2, which IPA faulted, and what stage 2 maps. Inside
GDB its commands are hyp-NAME; those that make sense on a dump, a value or a log are also gdbhyp NAME."""

_EXIT_STATUSES = (
    ("0", "the question was answered; a fault is an answer"),
    ("1", "it has no answer"),
    ("2", "it was typed wrongly"),
    ("3", "a file that it needs is bad or unreadable"),
)
_ENVIRONMENT = (
    ("NO_COLOR", "if set, text is not coloured"),
    (
        "VIRTUAL_ENV, GDBHYP_SITE",
        "where the plugin looks for its Python packages, besides where it is installed",
    ),
)


def names(command: Command) -> tuple[str, ...]:
    """Return what is typed for a declaration: in GDB, on the command line, or both."""
    typed = ((f"hyp-{command.name}", command.in_gdb), (f"gdbhyp {command.name}", command.in_cli))
    return tuple(name for name, there in typed if there)


def reference(commands: Iterable[Command]) -> str:
    """Return the help of every command, parameter and topic, one after the other."""
    sections = [(name, help_text(command, name)) for command in commands for name in names(command)]
    sections.append(("set hyp NAME VALUE, show hyp NAME", _parameters()))
    sections.extend((f"hyp-help {topic}", page(topic)) for topic in TOPICS)
    rule = "=" * 96
    return "\n\n".join([_INTRODUCTION, *(f"{rule}\n{head}\n\n{text}" for head, text in sections)])


def _parameters() -> str:
    return "\n\n".join(f"{_usage(p)}\n{textwrap.indent(_description(p), '  ')}" for p in PARAMETERS)


def _usage(parameter: Parameter) -> str:
    value = "|".join(parameter.values) if parameter.values else parameter.kind.upper()
    return f"set hyp {parameter.name} {value}"


def _description(parameter: Parameter) -> str:
    summary = parameter.summary[0].upper() + parameter.summary[1:]
    return f"{summary}\n{parameter.description.strip(chr(10))}"


def manual(commands: Iterable[Command], version: str) -> str:
    """Return a manual page for ``man``, in the macros of man(7)."""
    return "\n".join(_manual([*commands], version)) + "\n"


def _manual(commands: list[Command], version: str) -> Iterator[str]:
    yield f'.TH GDBHYP 1 "" "gdbhyp {version}" "User Commands"'
    yield from (".SH NAME", "gdbhyp, hyp\\- \\- AArch64 hypervisors in GDB, in dumps and in logs")
    yield from (
        ".SH SYNOPSIS",
        *_lines("gdbhyp COMMAND ...\ngdbhyp gdb [GDB'S ARGUMENTS]\n(gdb) hyp-COMMAND ..."),
    )
    yield from (".SH DESCRIPTION", _roff(_INTRODUCTION))
    yield ".SH COMMANDS"
    for command in commands:
        for name in names(command):
            yield from _section(command, name)
    yield ".SH OPTIONS OF EVERY COMMAND"
    yield from _options(EVERYWHERE)
    yield ".SH PARAMETERS"
    for parameter in PARAMETERS:
        yield from (".TP", f".B {_roff(_usage(parameter))}", *_lines(_description(parameter)))
    yield ".SH TOPICS"
    for topic in TOPICS:
        title, _, text = page(topic).partition("\n")
        yield from (f".SS {_roff(title)}", *_lines(text.strip("\n")))
    yield ".SH EXIT STATUS"
    for status, meaning in _EXIT_STATUSES:
        yield from (".TP", f".B {status}", _roff(meaning))
    yield ".SH ENVIRONMENT"
    for variable, meaning in _ENVIRONMENT:
        yield from (".TP", f".B {_roff(variable)}", _roff(meaning))
    yield from (".SH SEE ALSO", ".BR gdb (1)")


def _section(command: Command, name: str) -> Iterator[str]:
    yield from (f".SS {_roff(name)}", _roff(command.summary))
    for part, typed in [(command, name), *((sub, f"{name} {sub.name}") for sub in command.subcommands)]:
        yield from (".PP", f".B {_roff(part.usage(typed))}")
        if part is not command:
            yield from (".PP", _roff(part.summary))
        for paragraph in part.description.strip().split("\n\n") if part.description else []:
            yield from (".PP", _roff(" ".join(paragraph.split())))
        if not part.subcommands:
            yield from _options(a for a in part.all_arguments() if a not in EVERYWHERE)
    examples = example_text(command)
    if examples:
        yield from (".PP", "Examples:", *_lines(examples))


def _options(arguments: Iterable[Argument]) -> Iterator[str]:
    for argument in arguments:
        head, text = entry_texts(argument)
        yield from (".TP", f".B {_roff(head)}", _roff(text))


def _lines(text: str) -> list[str]:
    return [".nf", *(_roff(line) for line in text.splitlines()), ".fi"]


def _roff(text: str) -> str:
    """Return text that roff prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in escaped.split("\n"))
