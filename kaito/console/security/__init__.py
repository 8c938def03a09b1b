"""Access to the console: the token of the link, the addresses of requests, and the rights of users in a cluster."""
