"""How many replicas a model should have: one pure decision, asked alike by Ray Serve's controller and by the simulator.

`decide` bounds what a rule wants; rules are siblings that answer the same call: `slo` (ours, by the model's promises),
and what others do: `ray_default`, `queue` (as KEDA on queue length), `hpa` (as Kubernetes on utilisation).

May not happen in here: a clock, a random number, Ray, HTTP. What is measured comes in as `Load`, time as `now`.
"""

from serving.fleet.autoscaling.deciding import Policy as Policy
from serving.fleet.autoscaling.deciding import decide as decide
from serving.fleet.autoscaling.signals import Decision as Decision
from serving.fleet.autoscaling.signals import Load as Load
from serving.fleet.autoscaling.signals import Sums as Sums
from serving.fleet.autoscaling.signals import Variant as Variant
