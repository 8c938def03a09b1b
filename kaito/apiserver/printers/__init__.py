"""Tables for kubectl: the columns of built-in and custom kinds and the cells of each object."""
