"""What `import inspatio_sim` offers, and what it costs."""

import importlib
import subprocess
import sys

import pytest

import inspatio_sim


@pytest.mark.parametrize("name", inspatio_sim.__all__)
def test_public_names_are_found(name):
    found = getattr(inspatio_sim, name)
    assert found is getattr(importlib.import_module(found.__module__), name)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'Wolrd'"):
        inspatio_sim.Wolrd  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = "import inspatio_sim, sys; print({'torch', 'numpy', 'numba', 'av', 'cv2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
