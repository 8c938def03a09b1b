"""The served resources, the routes to them, and the store of their objects."""
