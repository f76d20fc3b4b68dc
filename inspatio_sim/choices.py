"""Names of choices, apart from the modules that implement them, so that the command line need not import those."""

from typing import Literal

Method = Literal["auto", "rgbd", "sfm", "da3", "hf", "layout", "tiny"]
"""How depth and cameras of a clip are found."""

ClockMode = Literal["once", "loop", "ping-pong", "freeze", "slow", "reverse"]
"""How the clip plays while the camera moves."""

Smoothing = Literal["through", "fitpack"]
"""How an orbit interpolates its keyframes."""

TrajectoryFormat = Literal["orbit", "tum", "matrices"]
"""Format of a camera-path file."""

PoseConvention = Literal["camera-to-world", "world-to-camera"]
"""Direction of the matrices of a camera path."""
