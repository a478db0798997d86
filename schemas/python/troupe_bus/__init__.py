"""Speaks to Troupe over its message bus, without HTTP. client.Client asks; worker.Worker is a service that is asked."""

from .client import Answer, Client
from .errors import BusError
from .worker import Worker

__all__ = ["Answer", "BusError", "Client", "Worker"]
