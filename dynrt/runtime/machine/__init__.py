"""The compiled mode: an automaton over decisions, whose hops are bound segments and kernels.

Between two decisions nothing can change: which segments run, on which buffers, is known once the
decisions before them are. So a way through the network is a chain of *hops*, each a list of bound
calls and one decision, found by following a :class:`~dynrt.runtime.walk.Walk` once and remembered.
Steady state looks nothing up but the next hop.
"""

from dynrt.runtime.machine.choice import Choice
from dynrt.runtime.machine.grouped import Group
from dynrt.runtime.machine.machine import Machine, Task
from dynrt.runtime.machine.parts import Engine, Parts
from dynrt.runtime.machine.recorded import run_recorded
from dynrt.runtime.machine.timing import Event, part_times_ns, run_events

__all__ = [
    "Choice",
    "Engine",
    "Event",
    "Group",
    "Machine",
    "Parts",
    "Task",
    "part_times_ns",
    "run_events",
    "run_recorded",
]
