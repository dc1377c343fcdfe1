"""Runs inside GDB: executes what arrives on one descriptor and answers on another, a JSON object a line."""

import json
import os

import gdb


def _answer(request: "dict[str, str]") -> "dict[str, object]":
    if "python" in request:
        return {"value": eval(request["python"])}
    return {"output": gdb.execute(request["command"], to_string=True)}


def _serve() -> None:
    read_fd, write_fd = (int(n) for n in os.environ["GDB_DRIVER_FDS"].split(","))
    with (
        os.fdopen(read_fd, "r", encoding="utf-8") as requests,
        os.fdopen(write_fd, "w", encoding="utf-8") as answers,
    ):
        for line in requests:
            try:
                answer = _answer(json.loads(line))
            except KeyboardInterrupt:
                answer = {"output": "", "error": "Quit"}
            except Exception as error:
                answer = {"output": "", "error": str(error)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


gdb.execute("set pagination off")
gdb.execute("set confirm off")
_serve()
