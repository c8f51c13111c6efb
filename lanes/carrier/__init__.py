"""What carries files between the head and a remote lane: code, inputs and checkpoints there; logs, metrics,
checkpoints and everything sealed back."""

from lanes.carrier.carrier import Carrier
from lanes.carrier.errors import BadHarvest, Cancelled, NotSendable
from lanes.carrier.resident import data
from lanes.carrier.weigh import Weight, largest, weigh
from lanes.harvest import NoRoom

__all__ = ["BadHarvest", "Cancelled", "Carrier", "NoRoom", "NotSendable", "Weight", "data", "largest", "weigh"]
