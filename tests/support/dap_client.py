"""A client of the Debug Adapter Protocol: requests and events as JSON over a process's standard streams."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class DapError(Exception):
    """The adapter refused a request."""


class DapClient:
    """A debug adapter that was started with a command."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._sequence = 0
        self._events: list[Any] = []

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; return its number."""
        self._sequence += 1
        request = {"seq": self._sequence, "type": "request", "command": command, "arguments": arguments}
        text = json.dumps(request).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
        self._process.stdin.flush()
        return self._sequence

    def answer(self, number: int) -> Any:
        """Return the body of the answer to a request.

        :raises DapError: with the adapter's message.
        """
        found = self._until(lambda m: m["type"] == "response" and m["request_seq"] == number)
        if not found["success"]:
            raise DapError(found.get("message", ""))
        return found.get("body")

    def ask(self, command: str, **arguments: Any) -> Any:
        return self.answer(self.send(command, **arguments))

    def event(self, name: str) -> Any:
        """Return the body of the next event of this name, one that came before included."""
        for event in self._events:
            if event["event"] == name:
                self._events.remove(event)
                return event.get("body")
        return self._until(lambda m: m["type"] == "event" and m["event"] == name).get("body")

    def _until(self, wanted: Callable[[Any], bool]) -> Any:
        while True:
            message = self._read()
            if wanted(message):
                return message
            if message["type"] == "event":
                self._events.append(message)

    def _read(self) -> Any:
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while (line := stream.readline().strip()) or not length:
            if not line:
                raise RuntimeError("the debug adapter ended")
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return json.loads(stream.read(length))

    def close(self) -> None:
        """End the adapter."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
