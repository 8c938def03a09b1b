pytest_plugins = ["kaito.runtime.testing.pytest"]
