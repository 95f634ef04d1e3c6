"""What one can put into a pipeline: agents, functions, and the patterns they stand in.

from stages import agent, parallel, quorum

research = parallel("views", a=agent(...), b=agent(...), join=quorum(1)) | agent("report", ...)
"""

from pipeline.core.joins import first, quorum
from stages.agent import agent
from stages.batch import batch
from stages.flat_map import flat_map
from stages.function import filter, map
from stages.loop import loop
from stages.map_reduce import map_reduce
from stages.models import as_model, resolve
from stages.parallel import parallel
from stages.partition import partition_by
from stages.route import route
from stages.scatter import scatter

__all__ = [
    "agent",
    "as_model",
    "batch",
    "filter",
    "first",
    "flat_map",
    "loop",
    "map",
    "map_reduce",
    "parallel",
    "partition_by",
    "quorum",
    "resolve",
    "route",
    "scatter",
]
