"""Fast DDS with room for images: the profile `fastdds.xml`, unless the user has one."""

from __future__ import annotations

import os
from pathlib import Path

PROFILE = Path(__file__).with_name("fastdds.xml")
# What Fast DDS 2 reads (Humble, Jazzy), and what Fast DDS 3 reads (Kilted).
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def use_profile() -> None:
    """Name our profile in this process's environment; has to come before `rclpy.init`."""
    if not any(os.environ.get(variable) for variable in VARIABLES):
        os.environ.update(dict.fromkeys(VARIABLES, str(PROFILE)))
