"""All packets of a file, looked at without decoding: how many there are, and where decoding may begin in the middle."""

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from jaxtyping import Int64

from pseudo3d.video.packets import Tally, no_frames, read_packets

_KEPT_BYTES = 8 << 20  # packets of files up to this size stay in memory, so that such a file is opened and read once

# Where every packet holds one frame that is shown, with its display time. Others are read from start to end: AVI has
# no display times, MPEG-TS no index; VP8 packets may hide a frame, MPEG-4 packets hold two or none.
_CONTAINERS = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")
_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg2video", "mjpeg", "prores")


@dataclass(frozen=True, eq=False)
class Scan:
    """What the packets of a video stream say.

    Args:
        tally: packets that hold a frame to show, and where reading failed.
        pts: (packets,) display times in decoding order, in units of the stream's time base; None where seeking is
            ruled out: times are missing or repeated, packets are damaged or hidden, or by the kind of file.
        dts: (packets,) decoding times, which is what files are sought by.
        entries: (keys,) rising positions of packets where decoding may begin: nothing shown later is decoded before
            them, nothing shown earlier after them. Frame p of the video is then that of packet p.
        kept: all packets when they take little memory, else None.
    """

    tally: Tally
    pts: Int64[np.ndarray, "packets"] | None
    dts: Int64[np.ndarray, "packets"]
    entries: Int64[np.ndarray, "keys"]
    kept: list[Packet] | None


def scan_packets(
    path: str | os.PathLike[str], container: InputContainer, stream: VideoStream, on_progress: Callable[[], None]
) -> Scan:
    """Reads the whole file, without decoding.

    Raises:
        VideoError: there is no packet with a frame to show, or reading failed.
    """
    tally = Tally()
    kept: list[Packet] | None = []
    size = 0
    pts, dts, keys = array("q"), array("q"), array("q")
    is_entry = _entry_test(container, stream)
    seekable = is_entry is not None
    for position, packet in enumerate(read_packets(path, container, stream, tally)):
        on_progress()
        size += packet.size
        if kept is not None:
            kept.append(packet)
            kept = kept if size <= _KEPT_BYTES else None
        if not seekable or packet.pts is None or _is_special(packet):
            seekable = False
            continue
        pts.append(packet.pts)
        dts.append(packet.pts if packet.dts is None else packet.dts)  # Matroska has none at the start
        if packet.is_keyframe and is_entry is not None and is_entry(packet):
            keys.append(position)
    if tally.packets == 0:
        raise no_frames(path, tally, stream)
    times = np.array(pts, np.int64)
    if not seekable or tally.undecodable or len(np.unique(times)) != len(times):
        return Scan(tally, None, np.empty(0, np.int64), np.empty(0, np.int64), kept)
    return Scan(tally, times, np.array(dts, np.int64), _clean(times, np.array(keys, np.int64)), kept)


def _is_special(packet: Packet) -> bool:
    """Whether the packet is damaged, not shown, or changes how those after it are decoded."""
    return packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata")


def _clean(pts: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The keyframes at which all that was decoded before is shown before, and all that comes after, after."""
    latest = np.maximum.accumulate(pts)
    earliest = np.minimum.accumulate(pts[::-1])[::-1]
    return keys[(latest[keys] == pts[keys]) & (earliest[keys] == pts[keys])]


def _entry_test(container: InputContainer, stream: VideoStream) -> Callable[[Packet], bool] | None:
    """Tells whether a packet that its container calls a keyframe resets the decoder; None: no seeking in such files."""
    context = stream.codec_context
    name = context.codec.canonical_name
    if container.format.name not in _CONTAINERS or name not in _CODECS or stream.time_base is None:
        return None
    if name not in ("h264", "hevc"):
        return lambda packet: True
    # H.264 and HEVC in these containers: NAL units, each after its length. Containers also call frames key that
    # later frames reach behind (recovery points), hence the look at the type of the unit.
    header = context.extradata or b""
    at, shift, mask, first, last = (4, 0, 31, 5, 5) if name == "h264" else (21, 1, 63, 16, 21)
    if len(header) <= at or header[0] != 1:
        return None  # start codes instead of lengths
    prefix = (header[at] & 3) + 1

    def test(packet: Packet) -> bool:
        data = memoryview(packet)
        place = 0
        while place + prefix < len(data):
            if first <= data[place + prefix] >> shift & mask <= last:
                return True
            place += prefix + int.from_bytes(data[place : place + prefix], "big")
        return False

    return test
