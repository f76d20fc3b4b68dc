"""A world as a ROS 2 node: cmd_vel goes in; camera, odometry, tf, map and clock come out."""
