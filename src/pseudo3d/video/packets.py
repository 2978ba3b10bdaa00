"""An open file's packets to decoded frames, with the damage on the way counted rather than hidden."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pseudo3d.errors import VideoError
from pseudo3d.video.filters import MAX_PIXELS
from pseudo3d.video.opening import check_frame_size, open_video

PathLike = str | os.PathLike[str]


@dataclass
class Tally:
    """What one reading of a file has come across so far."""

    packets: int = 0
    undecodable: int = 0


class DamagedError(Exception):
    """The stream has damage, or is not what its packets promise, and was read in a way that this spoils."""


def read_packets(path: PathLike, container: InputContainer, stream: VideoStream, tally: Tally) -> Iterator[Packet]:
    """The stream's packets that hold a frame to show. A file that breaks off ends where FFmpeg stops reading it."""
    try:
        for packet in container.demux(stream):
            # Empty ones end the stream. Discarded ones are decoded but not shown (the edit list of an MP4).
            tally.packets += bool(packet.size) and not packet.is_discard
            if packet.size:
                yield packet
    except OSError as error:  # the disk or network, not the video: going on would skew results silently
        raise VideoError(f"{path}: reading stopped ({error.strerror}); check the disk and try again") from None
    except av.error.FFmpegError:  # "cannot allocate" among them: packets of impossible size
        tally.undecodable += 1
    except IndexError:  # after the last packet, PyAV 18 stumbles over streams that appeared on the way
        return


def decode_frames(
    path: PathLike, stream: VideoStream, packets: Iterable[Packet], tally: Tally, *, strict: bool
) -> Iterator[VideoFrame]:
    """The frames of the packets, in the order they are shown.

    Raises:
        DamagedError: ``strict``, and a packet or frame is damaged, or packets and frames differ in number.
    """
    shown = 0
    for packet in _and_end(packets):
        try:
            frames = stream.codec_context.decode(packet)
        except MemoryError:  # FFmpeg's derives from both; it says nothing about the packet
            raise
        except av.error.FFmpegError:
            tally.undecodable += 1
            frames = []
        for frame in frames:
            if strict and frame.is_corrupt:
                raise DamagedError
            check_frame_size(path, frame.width, frame.height)
            shown += 1
            yield frame
        if strict and tally.undecodable:
            raise DamagedError
    if strict and shown != tally.packets:
        raise DamagedError  # at worst a stream with hidden frames is read twice


def _and_end(packets: Iterable[Packet]) -> Iterator[Packet | None]:
    """The packets, then None, which makes the decoder give out the frames it still holds."""
    yield from packets
    yield None


def count_packets(path: PathLike) -> int:
    """Packets of the video stream that hold a frame to show, at least 1; nothing is decoded."""
    with open_video(path) as (container, stream):
        tally = Tally()
        for _ in read_packets(path, container, stream, tally):
            pass
        if tally.packets == 0:
            raise no_frames(path, tally, stream)
    return tally.packets


def no_frames(path: PathLike, tally: Tally, stream: VideoStream) -> VideoError:
    """The error to raise when a reading found nothing to show."""
    if tally.packets and not stream.codec_context.width:  # FFmpeg forgets a size that it refuses
        return VideoError(
            f"{path}: its header gives no frame size, or one over the limit of {MAX_PIXELS} pixels; it is damaged, "
            f"copy or record it again"
        )
    return VideoError(
        f"{path}: holds no frame that can be decoded (of {tally.packets} video packets); it is cut off or damaged, "
        f"copy or record it again"
    )
