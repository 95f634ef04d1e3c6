"""A run that survives: the journal, the output that is made from it, and what a resume takes from both.

The journal is a sequence in one SQLite file. What happens in a run is queued in the order in which it happens; one
writer commits the queue group by group; a crash keeps a prefix. Two things wait until the sequence is durable up to
them, because nothing can take them back: a request, before it is sent, and a record's line, before anybody gets it.
Everything else is written and not waited for: whatever depends on it comes later in the sequence.

A resume is a replay. Open roots are run again from their start, with their page: answers of models, decisions that
looked at time or at functions, and what was declared impure come from there, and all else is computed again. The
output file is a projection of the lines in the journal, cut back to what is known to be on the disk and then made up.

Each package imports only those before it: `disk`, what a run keeps as it goes, and `fingerprint`, what a pipeline was;
`outputs`, the files that are made of the journal; `resume`, what is taken from the runs before; here the definition
(`journal`), a run with it (`session`) and one root's part of that (`page`); `inspection`, looking at a run from
outside, and `merging` the shards of one.
"""

from pipeline.durability.journal import Journal
from pipeline.durability.outputs.output import Output
from pipeline.durability.resume.reopening import Reopen

__all__ = ["Journal", "Output", "Reopen"]
