"""The command `penstock`: one command a file."""
