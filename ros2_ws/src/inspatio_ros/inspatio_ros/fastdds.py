"""Fast DDS with room for images: the profile `fastdds.xml`, unless the user has one."""

from __future__ import annotations

import os
from pathlib import Path

PROFILE = Path(__file__).with_name("fastdds.xml")
# Variables of Fast DDS 2 (Humble, Jazzy) and Fast DDS 3 (Kilted).
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def use_profile() -> None:
    """Set our profile in this process's environment; call it before `rclpy.init`."""
    if not any(os.environ.get(variable) for variable in VARIABLES):
        os.environ.update(dict.fromkeys(VARIABLES, str(PROFILE)))
