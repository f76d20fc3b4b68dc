"""A private ROS domain, for nodes that must not be seen by others."""

from __future__ import annotations

import random
import socket

from inspatio_sim.errors import InputError


def free_domain() -> int:
    """A domain that no ROS system on this machine uses: the UDP ports of its first participants are free."""
    for domain_id in random.sample(range(1, 101), 100):
        try:
            for participant in range(4):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("", 7410 + 250 * domain_id + 2 * participant))
        except OSError:
            continue
        return domain_id
    raise InputError("all domains from 1 to 100 are in use on this machine")
