"""Everything in this folder needs ROS 2: it is skipped, with the reason, where that is missing.

What times a node wants the machine to itself: `pytest tests/ros`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "ros2_ws" / "src" / "inspatio_ros"
TIMED = ("test_benchmark_ros.py",)
MISSING = [name for name in ("rclpy", "sensor_msgs", "nav_msgs", "std_srvs") if find_spec(name) is None]

if find_spec("inspatio_ros") is None:
    sys.path.insert(0, str(PACKAGE))


class SkippedModule(pytest.Module):
    def collect(self):
        pytest.skip(f"no {', '.join(MISSING)}: install the extra [ros]", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return SkippedModule.from_parent(parent, path=module_path) if MISSING else None


def pytest_collection_modifyitems(config, items):
    is_asked_for = any(HERE.name in Path(argument.partition("::")[0]).parts for argument in config.args)
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.ros)
            if item.path.name in TIMED and not is_asked_for:
                item.add_marker(pytest.mark.skip(reason="a node against the clock: run pytest tests/ros"))
