"""The steps of a reconcile, one module each: `async (run) -> None`, called in the order `controller` lists them."""
