"""Looking at a run from outside, which changes nothing: what there is, and whether it holds together."""
