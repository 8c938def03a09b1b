"""An operator that runs memcached: the example of kaito.runtime's tutorial."""
