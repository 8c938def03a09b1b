"""Builds the objects that the workspace controller applies: pure functions of Workspace, plan and settings.

Objects contain only the fields that the controller sets on purpose, because it owns every field that it applies.
"""
