"""An operator that publishes records at a DNS provider whose HTTP API is slow and sometimes down."""
