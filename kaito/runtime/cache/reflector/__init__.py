"""Follows one collection of the API server: LIST, watch or WatchList, reconnects, and the requests they need."""
