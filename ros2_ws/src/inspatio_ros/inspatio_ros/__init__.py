"""A world as a ROS 2 node: actions come in as cmd_vel, observations go out as camera, odometry, tf, map and clock."""
