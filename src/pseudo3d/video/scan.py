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
        entries: (keys,) rising positions of packets where decoding may begin: nothing shown later is decoded before
            them, nothing shown earlier after them. Frame p of the video is then that of packet p.
        dts: (keys,) decoding times of the entries, which is what files are sought by.
        kept: all packets when they take little memory, else None.
    """

    tally: Tally
    pts: Int64[np.ndarray, "packets"] | None
    entries: Int64[np.ndarray, "keys"]
    dts: Int64[np.ndarray, "keys"]
    kept: list[Packet] | None


class PacketScanner:
    """Looks at the packets of one stream, all of them and in their order.

    Args:
        container: the open file.
        stream: its video stream.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._is_entry = _entry_test(container, stream)
        self._pts, self._dts, self._keys = array("q"), array("q"), array("q")

    def look(self, packet: Packet) -> None:
        """Takes note of the next packet."""
        if self._is_entry is None:
            return
        if packet.pts is None or _is_special(packet):
            self._is_entry = None
            return
        if packet.is_keyframe and self._is_entry(packet):
            self._keys.append(len(self._pts))
        self._pts.append(packet.pts)
        self._dts.append(packet.pts if packet.dts is None else packet.dts)  # Matroska has none at the start

    def result(self, tally: Tally, kept: list[Packet] | None = None) -> Scan:
        """What was found in the packets; ``tally`` is that of their reading."""
        pts = np.array(self._pts, np.int64)
        if self._is_entry is None or tally.undecodable or len(np.unique(pts)) != len(pts):
            return Scan(tally, None, np.empty(0, np.int64), np.empty(0, np.int64), kept)
        entries = _clean(pts, np.array(self._keys, np.int64))
        return Scan(tally, pts, entries, np.array(self._dts, np.int64)[entries], kept)


def scan_packets(
    path: str | os.PathLike[str], container: InputContainer, stream: VideoStream, on_progress: Callable[[], None]
) -> Scan:
    """Reads the whole file, without decoding.

    Raises:
        VideoError: there is no packet with a frame to show, or reading failed.
    """
    tally, scanner = Tally(), PacketScanner(container, stream)
    kept: list[Packet] | None = []
    size = 0
    for packet in read_packets(path, container, stream, tally):
        on_progress()
        size += packet.size
        if kept is not None:
            kept.append(packet)
            kept = kept if size <= _KEPT_BYTES else None
        scanner.look(packet)
    if tally.packets == 0:
        raise no_frames(path, tally, stream)
    return scanner.result(tally, kept)


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
