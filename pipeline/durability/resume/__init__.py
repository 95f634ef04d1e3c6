"""What a resume takes from the runs before it: what is open, what was paid, what is opened again, and what may not
have changed."""
