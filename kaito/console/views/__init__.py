"""Pure functions from objects to the JSON of the console's API. What is unknown is null."""
