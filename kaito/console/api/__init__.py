"""The routes of the API under /api, by subject. Each handler gets the request and its user."""
