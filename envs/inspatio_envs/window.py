"""A window for `render_mode="human"`, using Python's own Tk."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from inspatio_sim.errors import InputError

SCALE_TO_PX = 480  # small frames are enlarged to about this height


def window_problem() -> str | None:
    """The reason that no window can be opened here, or None."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        return "there is no display (DISPLAY is not set)"
    if find_spec("tkinter") is None or find_spec("_tkinter") is None:
        return "this Python has no tkinter (on Debian and Ubuntu: apt install python3-tk)"
    return None


class Window:
    """Shows frames; once closed by the user it stays closed."""

    def __init__(self, title: str) -> None:
        problem = window_problem()
        if problem:
            raise InputError(f"render_mode='human': {problem}: want a display, or render_mode='rgb_array'")
        try:
            import tkinter  # fails if Tk's libraries are missing
        except ImportError as error:
            raise InputError(f"render_mode='human': {error}: want Tk, or render_mode='rgb_array'") from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise InputError(
                f"render_mode='human': {error}: want a display that answers, or render_mode='rgb_array'"
            ) from error
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._is_open = True

    def show(self, rgb_u8: NDArray[np.uint8]) -> None:
        """Show a frame. [H, W, 3]"""
        if not self._is_open:
            return
        from PIL import Image, ImageTk

        factor = max(1, SCALE_TO_PX // rgb_u8.shape[0])
        image = Image.fromarray(rgb_u8.repeat(factor, 0).repeat(factor, 1))
        self._photo = ImageTk.PhotoImage(image, master=self._root)  # Tk keeps no reference of its own
        self._label.configure(image=self._photo)
        self._root.update()

    def close(self) -> None:
        """Close the window; may be called again."""
        if self._is_open:
            self._is_open = False
            self._root.destroy()
