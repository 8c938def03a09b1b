"""Pure builders of everything the workspace controller applies: (workspace, plan, settings) in, typed objects out.

Objects carry only the fields the controller means, because a field it applies is a field it owns.
"""
