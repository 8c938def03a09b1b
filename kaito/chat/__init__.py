"""Chats with the model of a Workspace: `endpoint` finds its server and streams answers from it.

`kaito chat` and the console use it.
"""
