"""What one can put into a pipeline: agents, functions, and the patterns they stand in.

from stages import agent, parallel, quorum

research = parallel("views", a=agent(...), b=agent(...), join=quorum(1)) | agent("report", ...)
"""

from pipeline.core.joins import first, majority, quorum
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
from stages.shape import shape, to_aiostream
from stages.shared import SharedState
from stages.tap import tap
from stages.tools import ToolError, tool
from stages.vote import vote

__all__ = [
    "SharedState",
    "ToolError",
    "agent",
    "as_model",
    "batch",
    "filter",
    "first",
    "flat_map",
    "loop",
    "majority",
    "map",
    "map_reduce",
    "parallel",
    "partition_by",
    "quorum",
    "resolve",
    "route",
    "scatter",
    "shape",
    "tap",
    "to_aiostream",
    "tool",
    "vote",
]
