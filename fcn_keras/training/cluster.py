"""`TF_CONFIG` -> the workers of a run on several machines, which wait for each other."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from typing import Any

from fcn_keras.errors import UserError

# Kubernetes may have to pull an image on a machine before its worker starts.
START_SECONDS = 600
joined = False  # whether this process has met the other workers
EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together, and which of them this one is.

    Args:
        addresses: `host:port` of each worker. The first is the chief, the only one to write
            files: the task `chief` if there is one, else worker 0.
        index: This process's place among them.
    """

    addresses: tuple[str, ...]
    index: int

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """The cluster in `TF_CONFIG`; `None` if there is none or only a single worker.

        Raises:
            UserError: If it is malformed, or has tasks that are neither worker nor chief.
        """
        text = os.environ.get("TF_CONFIG", "")
        try:
            content = json.loads(text or "{}")
        except ValueError as error:
            raise UserError(f"TF_CONFIG is not JSON ({error}). Expected: {EXAMPLE}") from error
        jobs: Any = content.get("cluster") if isinstance(content, dict) else text
        if not jobs:
            return None
        try:
            addresses = {job: [*hosts] for job, hosts in jobs.items()}
            everyone = tuple(addresses.get("chief", []) + addresses.get("worker", []))
            if not all(address.rpartition(":")[2].isdigit() for address in everyone):
                raise TypeError
        except (AttributeError, TypeError) as error:
            raise UserError(
                f"TF_CONFIG: cluster needs lists of host:port. Expected: {EXAMPLE}"
            ) from error
        return cls._of_task(content.get("task"), addresses, everyone)

    @classmethod
    def _of_task(cls, task, addresses: dict[str, list], everyone: tuple) -> Cluster | None:
        task = task if isinstance(task, dict) else {}
        kind, index = task.get("type"), str(task.get("index"))
        others = sorted({*addresses, kind or "worker"} - {"chief", "worker"})
        if others or len(addresses.get("chief", [])) > 1 or len(set(everyone)) < len(everyone):
            raise UserError(
                "TF_CONFIG: training needs workers with different addresses, and at most one "
                f"chief. Received: {', '.join(others) or ', '.join(everyone)}."
            )
        if len(everyone) == 1:
            return None
        if not index.isdigit() or int(index) >= len(addresses.get(kind, [])):
            raise UserError(
                f"TF_CONFIG: task must be one of the cluster's. Received: {json.dumps(task)}. "
                f"Expected: {EXAMPLE}"
            )
        return cls(everyone, everyone.index(addresses[kind][int(index)]))

    def wait_for_all(self) -> None:
        """Returns when every worker has been reached.

        TensorFlow itself would wait forever and ignore signals.

        Raises:
            UserError: If one cannot be reached within `START_SECONDS`, or this worker's
                port is in use.
        """
        global joined
        deadline = time.monotonic() + START_SECONDS
        with self._listening():
            for number, address in enumerate(self.addresses):
                while number != self.index and not _answers(address):
                    if time.monotonic() > deadline:
                        raise UserError(
                            f"Worker {number} at {address} did not come up within "
                            f"{START_SECONDS} seconds. Start all workers of TF_CONFIG, and make "
                            "sure that they can reach each other's ports."
                        )
                    time.sleep(0.2)
        joined = True

    def _listening(self) -> socket.socket:
        port = int(self.addresses[self.index].rpartition(":")[2])
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        try:
            return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise UserError(
                f"TF_CONFIG: port {port} of this worker cannot be opened ({error.strerror}). Stop "
                "the process that uses it, or choose another port."
            ) from error


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:  # also if the host's name is not known yet
        return False
    return True
