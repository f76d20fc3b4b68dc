"""How colcon builds the package; `pip install '.[ros]'` in the repository's root installs the same modules."""

import os
from glob import glob

from setuptools import setup
from setuptools.command.install_scripts import install_scripts

NAME = "inspatio_ros"


class InstallScripts(install_scripts):
    """Executables that find the package they were installed with, also before `source install/setup.bash`."""

    def write_script(self, script_name, contents, mode="t", *ignored):
        first_line, rest = contents.split("\n", 1)
        modules = os.path.relpath(self.get_finalized_command("install").install_lib, self.install_dir)
        find = (
            f"import os, sys; sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), {modules!r}))"
        )
        super().write_script(script_name, f"{first_line}\n{find}\n{rest}", mode, *ignored)


setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    package_data={NAME: ["fastdds.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/rviz", sorted(glob("rviz/*.rviz"))),
    ],
    maintainer="inspatio-sim maintainers",
    maintainer_email="maintainers@inspatio-sim.dev",
    description="The world of inspatio_sim as a robot's RGB-D camera.",
    license="Apache-2.0",
    zip_safe=False,
    entry_points={"console_scripts": ["world = inspatio_ros.main:main"]},
    cmdclass={"install_scripts": InstallScripts},
)
