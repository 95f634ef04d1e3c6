"""Where records come from: `Inputs` reads files and stdin."""

from stages.sources.inputs import Inputs, InputStatistics, OpenInputs
from stages.sources.sniff import Format

__all__ = ["Format", "InputStatistics", "Inputs", "OpenInputs"]
