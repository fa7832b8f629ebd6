"""A ROS 2 node: takes pictures of a topic, publishes label maps of the same size.

    python examples/ros2_node.py --ros-args -p engine:=enet-camvid -r image:=/camera/image_raw

Needs ROS 2 with rclpy and sensor_msgs. It was never run with a real ROS 2.
"""

import contextlib
import sys
from typing import Any

import numpy as np

import edgeseg

try:
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image
except ImportError as error:
    sys.exit(f"this example needs ROS 2 ({error}): source its setup.bash first")


class Segmenter(Node):  # type: ignore[misc, unused-ignore]  # rclpy has no types
    """Label each picture with an engine."""

    def __init__(self) -> None:
        super().__init__("edgeseg")
        name = self.declare_parameter("engine", "enet-camvid").value
        self._engine = edgeseg.load_engine(name)
        self._labels = self.create_publisher(Image, "labels", 1)
        # The newest frame only: a robot that acts on old labels is worse than one that skips some.
        self.create_subscription(Image, "image", self.label, qos_profile_sensor_data)

    def label(self, message: Any) -> None:
        """Publish the label map of a picture, with the picture's own time and frame."""
        if message.encoding not in ("bgr8", "rgb8"):
            self.get_logger().error(f"got {message.encoding}, expected bgr8 or rgb8")
            return
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        frame = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
        if message.encoding == "rgb8":
            frame = frame[:, :, ::-1]

        labels = self._engine(np.ascontiguousarray(frame))
        answer = Image(header=message.header, height=message.height, width=message.width)
        answer.encoding, answer.step = "mono8", message.width
        answer.data = labels.tobytes()
        self._labels.publish(answer)


def main() -> None:
    """Run the node until it is stopped."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt):
        rclpy.spin(Segmenter())
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
