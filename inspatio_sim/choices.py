"""What is chosen by a word, apart from the modules that do it: the command line offers it without importing those."""

from typing import Literal

Method = Literal["auto", "rgbd", "sfm", "da3", "hf", "layout", "tiny"]
"""How depth and cameras of a clip are found."""

ClockMode = Literal["once", "loop", "ping-pong", "freeze", "slow", "reverse"]
"""How the clip plays while the camera moves."""

Smoothing = Literal["through", "fitpack"]
"""Which curve an orbit makes of its keyframes."""

TrajectoryFormat = Literal["orbit", "tum", "matrices"]
"""What a file holds that describes a camera path."""

PoseConvention = Literal["camera-to-world", "world-to-camera"]
"""Which way the matrices of a camera path point."""
