"""HTTP endpoints of a manager: health, metrics with authorization, debug pages, and the servers that serve them."""
