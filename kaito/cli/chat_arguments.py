"""Flags of `kaito chat`, in a module of its own: `kaito --help` does not load the client."""

import argparse
from pathlib import Path


def add_arguments(chat: argparse.ArgumentParser) -> None:
    """Adds the flags to the parser of the command."""
    chat.add_argument("workspace", help="name of the Workspace")
    chat.add_argument("-p", "--prompt", type=_question, default=None, help="ask this, print the answer and exit")
    chat.add_argument("-n", "--namespace", default="", help="namespace (default: that of the kubeconfig)")
    chat.add_argument("--kubeconfig", type=Path, help="kubeconfig (default: KUBECONFIG, then ~/.kube/config)")
    chat.add_argument("--context", default="", help="context of the kubeconfig")
    chat.add_argument("--adapter", "--model", dest="model", default="", help="adapter that answers (default: all)")
    chat.add_argument("--system", default="", help="system message")
    chat.add_argument("--max-tokens", type=int, help="most tokens of an answer")
    chat.add_argument("--temperature", type=float, help="0 for the most probable answer")


def _question(text: str) -> str:
    """Returns the question.

    Raises:
        ArgumentTypeError: it is empty, as from a variable of a script that is not set.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty: give a question")
    return text
