"""A video file opened with PyAV (FFmpeg): only that file is read, and every error names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import Container
from av.error import FFmpegError
from av.stream import Disposition

from inspatio_sim.errors import InputError

# Demuxers that read nothing but the file itself: playlists and concat scripts, which FFmpeg would
# follow to other files and addresses, are refused. Audio formats are there for a better message.
_CONTAINERS = "mov,matroska,avi,gif,mpegts,mpeg,flv,ogg,asf,mxf,dv,ivf,h264,hevc,m4v,mp3,wav,flac,aac"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
# A title that is not UTF-8 must not make a video unreadable. PyAV up to 18 needs this option; 19 ignores such titles.
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if hasattr(Container, "metadata_errors") else {}


@contextmanager
def opened(path: Path, options: Mapping[str, str] | None = None) -> Iterator[tuple[Any, Any]]:
    """Open a video file: its container and its video stream. No FFmpeg exception leaves the block.

    Args:
        path: the file.
        options: options of the container's demuxer.
    """
    options = _OPTIONS | dict(options or {})
    try:  # as `options` they crash PyAV 16 and 17.0 when streams appear late (MPEG-PS)
        with av.open(str(path.absolute()), container_options=options, **_LENIENT) as container:
            yield container, _video_stream(container, path)
    except FFmpegError as error:
        raise InputError(f"{path}: not a video that can be read: {error.strerror}") from error


def _video_stream(container: Any, path: Path) -> Any:
    """The first real video stream; cover images of audio files do not count."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise InputError(f"{path}: the video's codec is not known to this FFmpeg build")
            stream.thread_type = "AUTO"
            return stream
    what = "only audio" if container.streams.audio else "no video"
    raise InputError(f"{path}: {what} in this file: want a video")
