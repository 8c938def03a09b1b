"""`kaito chat`: a conversation with a Workspace in the terminal, through a kubeconfig.

Answers are streamed. In a terminal, Ctrl-C stops the answer and keeps the conversation; otherwise each line of the
standard input is a turn, and the output contains only the answers. Exit codes: 0 done, 1 failure, 130 interrupted.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, TextIO, final

from kaito.chat.endpoint import Answer, ChatEndpoint, ChatError, find_endpoint
from kaito.runtime.client import Client, HttpTransport, find_cluster_config
from kaito.runtime.clock import monotonic

HELP: Final = """\
/reset            forget the conversation
/models           list what can answer
/model NAME       choose: the served name, an adapter, or NAME:base
/system TEXT      set the system message and forget the conversation
/exit, Ctrl-D     leave; Ctrl-C stops an answer"""


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        try:
            conversation = runner.run(_open(arguments, stack))
            terminal = Terminal(runner, conversation, color=sys.stdout.isatty())
            if arguments.prompt:
                return terminal.answer_once(arguments.prompt)
            if sys.stdin.isatty() and sys.stdout.isatty():
                return terminal.converse()
            return terminal.answer_lines(sys.stdin)
        except ChatError as error:
            sys.stderr.write(f"kaito: {error}\n")
            return 1
        finally:
            runner.run(stack.aclose())


async def _open(arguments: argparse.Namespace, stack: contextlib.AsyncExitStack) -> "Conversation":
    """Returns the conversation; its connections are closed with the stack.

    Raises:
        ChatError: the Workspace cannot answer, or has no such adapter.
    """
    config = await find_cluster_config(arguments.kubeconfig, arguments.context)
    transport = HttpTransport(config)
    stack.push_async_callback(transport.close)
    namespace = arguments.namespace or config.namespace or "default"
    client = Client(transport, field_manager="kaito-chat")
    endpoint = await find_endpoint(client, transport, arguments.workspace, namespace)
    stack.push_async_callback(endpoint.transport.close)
    models = await endpoint.models()
    options = {"max_tokens": arguments.max_tokens, "temperature": arguments.temperature}
    chosen = {name: value for name, value in options.items() if value is not None}
    conversation = Conversation(endpoint, models, models[0], chosen, arguments.system)
    if arguments.model:
        conversation.choose(arguments.model)
    return conversation


@final
@dataclass(slots=True)
class Conversation:
    """Messages so far, and what answers them."""

    endpoint: ChatEndpoint
    models: list[str]
    model: str
    options: dict[str, Any]
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def choose(self, name: str) -> None:
        """Chooses what answers from now on.

        Raises:
            ChatError: the server does not have it.
        """
        if name not in self.models:
            raise ChatError(f"{self.endpoint.what} has no model or adapter {name!r}; it has: {', '.join(self.models)}")
        self.model = name

    def reset(self) -> None:
        """Forgets the conversation."""
        self.turns.clear()

    async def ask(self, question: str, answer: Answer) -> AsyncGenerator[str]:
        """Streams the answer. A partial answer stays in the conversation; a question without answer does not."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        asked = {"role": "user", "content": question}
        try:
            async with contextlib.aclosing(
                self.endpoint.stream(self.model, [*head, *self.turns, asked], self.options, answer)
            ) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            if answer.text:
                self.turns += [asked, {"role": "assistant", "content": answer.text}]


@final
class Terminal:
    """Reads questions, and prints answers as they arrive."""

    def __init__(
        self, runner: asyncio.Runner, conversation: Conversation, *, color: bool, out: TextIO | None = None
    ) -> None:
        self._runner = runner
        self._conversation = conversation
        self._color = color
        self._out = out or sys.stdout

    def answer_once(self, question: str) -> int:
        """Prints the answer to one question; returns the exit code."""
        try:
            self._answer(question)
        except KeyboardInterrupt:
            self._write("\n")
            return 130
        return 0

    def answer_lines(self, lines: TextIO) -> int:
        """Answers each line; returns the exit code. The conversation ends at the first failure."""
        for line in lines:
            if line.strip() and (code := self.answer_once(line.strip())):
                return code
        return 0

    def converse(self) -> int:
        """Runs the conversation until the user leaves it; returns the exit code."""
        with contextlib.suppress(ImportError):
            import_module("readline")  # gives `input` line editing and a history

        self._write(f"{self._conversation.endpoint.what}: {self._conversation.model} answers; /help lists commands\n")
        interrupted = False
        while True:
            try:
                line = input(">>> ").strip()
            except EOFError:
                self._write("\n")
                return 0
            except KeyboardInterrupt:
                self._write("\n")
                if interrupted:
                    return 130
                interrupted = True
                self._write("Ctrl-D or /exit leaves; Ctrl-C again does, too\n")
                continue
            interrupted = False
            if line in {"/exit", "/quit"}:
                return 0
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        """Runs a command, or answers a question; failures are printed."""
        try:
            if line.startswith("/"):
                self._command(line)
            else:
                self._answer(line, statistics=True)
        except KeyboardInterrupt:
            self._write(f"\n{self._dim('stopped')}\n")
        except ChatError as error:
            self._write(f"\n{error}\n")
        except Exception as error:  # noqa: BLE001  # a lost connection ends the answer and not the conversation
            self._write(f"\nthe request failed: {str(error) or type(error).__name__}\n")

    def _command(self, line: str) -> None:
        name, _, value = line.partition(" ")
        value = value.strip()
        if name == "/reset":
            self._conversation.reset()
        elif name in {"/models", "/adapters"}:
            self._conversation.models = self._runner.run(self._conversation.endpoint.models())
            chosen = self._conversation.model
            self._write("".join(f"{'*' if model == chosen else ' '} {model}\n" for model in self._conversation.models))
        elif name in {"/model", "/adapter"} and value:
            self._conversation.models = self._runner.run(self._conversation.endpoint.models())
            self._conversation.choose(value)
        elif name == "/system":
            self._conversation.system = value
            self._conversation.reset()
        else:
            self._write(f"{HELP}\n")

    def _answer(self, question: str, *, statistics: bool = False) -> None:
        answer = Answer()
        waited, generated = self._runner.run(self._print(question, answer))
        self._write("" if answer.text.endswith("\n") else "\n")
        if statistics:
            facts = [f"{answer.tokens} tokens"]
            if answer.tokens > 1 and generated > 0:
                facts.append(f"{(answer.tokens - 1) / generated:.1f} tokens/s")
            facts.append(f"first after {waited:.2f} s")
            if answer.finish_reason == "length":
                facts.append("ended at the most tokens of an answer")
            self._write(self._dim(", ".join(facts)) + "\n")

    async def _print(self, question: str, answer: Answer) -> tuple[float, float]:
        """Prints the answer piece by piece; returns the seconds before and after its first piece."""
        started, first = monotonic(), 0.0
        async with contextlib.aclosing(self._conversation.ask(question, answer)) as pieces:
            async for piece in pieces:
                first = first or monotonic()
                self._write(_printable(piece) if self._color else piece)
        ended = monotonic()
        first = first or ended
        return first - started, ended - first

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _dim(self, text: str) -> str:
        return f"\033[2m{text}\033[0m" if self._color else text


def _printable(text: str) -> str:
    """Replaces control characters, with which a model could change the terminal."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)
