"""Rows: their schema and the sources that they are read from."""
