"""Create, update, patch and subresource writes."""
