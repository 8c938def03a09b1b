"""Creates projects of operators, and adds kinds, webhooks and conversions to them.

names       checks names of projects, kinds and versions: pure functions
contents    what a project consists of, and the file that records it
render      renders the files of a project from the templates: a pure function
changes     compares renderings with the files of a user, and writes what no user has edited
command     the commands `kaito-runtime init` and `kaito-runtime add`

A project is rendered from its contents alone. A change renders the contents before and after it, and writes the files
that differ. It writes either all of them, or none if one was edited.
"""
