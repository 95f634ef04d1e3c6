"""The files that are made of the journal: the output by its lines, and the dead letters."""
