"""The model card: README.md of a pretrained folder, for people and, in its YAML header, for the Hugging Face hub."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pseudo3d.models import VideoModel
from pseudo3d.preprocessing import Preprocessing

_IN_LINE = 12  # more classes than this are a list to unfold

_P3D_PAPER = """\
@inproceedings{qiu2017learning,
  title     = {Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks},
  author    = {Qiu, Zhaofan and Yao, Ting and Mei, Tao},
  booktitle = {IEEE International Conference on Computer Vision (ICCV)},
  year      = {2017}
}"""
_C3D_PAPER = """\
@inproceedings{tran2015learning,
  title     = {Learning Spatiotemporal Features with 3D Convolutional Networks},
  author    = {Tran, Du and Bourdev, Lubomir and Fergus, Rob and Torresani, Lorenzo and Paluri, Manohar},
  booktitle = {IEEE International Conference on Computer Vision (ICCV)},
  year      = {2015}
}"""

_USE = """\
## Use

```sh
p3d predict VIDEO --weights {weights}               # the most likely classes
p3d extract VIDEOS --weights {weights} --out STORE  # one representation of each video
```

```python
import pseudo3d

model = pseudo3d.from_pretrained("{weights}")  # the network, its preprocessing and its class names
encoder = pseudo3d.VideoEncoder(weights="{weights}")
features = encoder.encode("video.mp4")  # float32, averaged over 20 clips
```"""

_PROTOCOL = """\
Shares of 1. The clips are spread evenly over each video and cropped at the centre; a video's score is the mean of its
clips' probabilities (section 4 of the paper). Hit@1 counts the clips or videos whose class comes first, hit@5 those
whose class is among the first five. Validation videos may have chosen the epoch; test videos chose nothing."""


@dataclass(frozen=True)
class Score:
    """What was measured on one side of the data.

    Args:
        side: "val" or "test".
        videos: how many.
        clips: of each video.
        hits: shares 0..1 by "clip hit@1", "video hit@1", "video hit@5".
    """

    side: str
    videos: int
    clips: int
    hits: Mapping[str, float]


@dataclass(frozen=True)
class CardInfo:
    """What is known of a network beside its config; whatever is left out, the card says that it is not stated.

    Args:
        data: name of the data it was trained on.
        datasets: their ids on the hub ("owner/name"), if they are there.
        videos: how many on each side: train, val, test.
        class_videos: training videos of each class.
        start: what the training started from, in words.
        base_model: the same as an id of the hub, if it is there.
        trained: how far, e.g. "recipe scratch, epoch 3 of 60".
        settings: the numbers of the recipe that matter, by name.
        scores: what was measured.
        license: an id of the hub's list ("cc-by-4.0", "mit") or any words; None when the owner has not said.

    Example:
        >>> CardInfo(data="fights", license="mit").data
        'fights'
    """

    data: str | None = None
    datasets: tuple[str, ...] = ()
    videos: Mapping[str, int] = field(default_factory=dict)
    class_videos: Mapping[str, int] = field(default_factory=dict)
    start: str | None = None
    base_model: str | None = None
    trained: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    license: str | None = None


def card_text(
    model: VideoModel,
    info: CardInfo | None = None,
    *,
    facts: Mapping[str, str] | None = None,
    source: str | None = None,
) -> str:
    """The model card of a network, README.md.

    Args:
        model: its architecture, preprocessing and class names are described.
        info: what else is known.
        facts: more rows for the table of the architecture.
        source: what to write after --weights, e.g. "hf:owner/name"; None for "FOLDER".

    Returns:
        Markdown with a YAML header.

    Example:
        >>> import pseudo3d
        >>> card_text(pseudo3d.create_model("resnet14", num_classes=2), CardInfo(license="mit")).splitlines()[:4]
        ['---', 'library_name: pseudo3d', 'license: mit', 'pipeline_tag: video-classification']
    """
    from pseudo3d import __version__

    info = info or CardInfo()
    name = model.architecture.name
    outputs = f"{model.architecture.num_classes} {'classes' if model.class_names else 'outputs without names'}"
    parts = [
        f"---\n{_header(model, info, source)}\n---",
        f"# {_line(_name(model, source).rsplit('/', 1)[-1])}",
        f"`{name}`, {outputs}: a network that {_kind(model)}. Written by pseudo3d {__version__}.",
        _USE.format(weights=source or "FOLDER") + ("" if source else "\n\nFOLDER is the folder of this file."),
        _architecture(model, facts or {}),
        _classes(model.class_names or ()),
        _training(info),
        _scores(info.scores),
        _limits(model, info),
        f"## Licence\n\n{_line(info.license) if info.license else 'Not stated.'}",
        _citation(name),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: object) -> str:
    r"""Any text as Markdown that shows it as it is, on one line; also in a table, not at the start of a line.

    Example:
        >>> print(plain("a|b\n<i>*c*</i> _d_ e_f"))
        a\|b &lt;i&gt;\*c\*&lt;/i&gt; \_d\_ e_f
    """
    line = " ".join(_encodable(str(text)).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\_", line)


def _line(text: object) -> str:
    """The same at the start of a line, where "#", "-" and "1." would begin a heading or a list."""
    return re.sub(r"^(\d*)([#+=:.)-])", r"\1\\\2", plain(text))


def _encodable(text: str) -> str:
    """Names of files may hold bytes that are no text; UTF-8 cannot write these, nor YAML most control characters."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def _name(model: VideoModel, source: str | None) -> str:
    return (source or model.architecture.name).removeprefix("hf:")


def _header(model: VideoModel, info: CardInfo, source: str | None) -> str:
    """The YAML that the hub reads, without the lines around it."""
    from huggingface_hub import ModelCardData  # here: importing it takes a third of a second

    known: dict[str, Any] = {}
    if info.scores:
        known |= {
            "model_name": _name(model, source),
            "eval_results": _results(info),
            "metrics": ["accuracy"],
        }
    if info.license and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", info.license):
        known["license"] = info.license
    elif info.license:
        known |= {"license": "other", "license_name": _encodable(info.license)}
    return ModelCardData(
        library_name="pseudo3d",
        pipeline_tag="video-classification",
        tags=["video", "action-recognition", model.architecture.name],
        datasets=list(info.datasets) or None,
        base_model=info.base_model,
        **known,
    ).to_yaml()


def _results(info: CardInfo) -> list[Any]:
    from huggingface_hub import EvalResult

    data = _encodable(info.data or "not stated")
    return [
        EvalResult(
            task_type="video-classification",
            dataset_name=data,
            dataset_type=info.datasets[0] if info.datasets else re.sub(r"[^\w.-]+", "-", data),
            dataset_split={"val": "validation"}.get(score.side, score.side),
            metric_type="top_5_accuracy" if measure.endswith("@5") else "accuracy",
            metric_name=measure,
            metric_value=round(value, 4),
            metric_args={"videos": score.videos, "clips per video": score.clips},
        )
        for score in info.scores
        for measure, value in score.hits.items()
    ]


def _kind(model: VideoModel) -> str:
    name = model.architecture.name
    if name.startswith("p3d"):
        return "sees motion through pairs of spatial and temporal convolutions (Pseudo-3D Residual Networks, ICCV 2017)"
    if name == "c3d":
        return "sees motion through 3x3x3 convolutions (C3D, ICCV 2015)"
    if name.startswith("c3d_small"):
        return (
            "sees motion through 3-D convolutions (a smaller C3D, as in its paper's comparison of kernels, ICCV 2015)"
        )
    return "looks at single frames and averages over them (the frame baseline of Pseudo-3D Residual Networks)"


def _table(rows: Iterable[tuple[object, ...]], head: tuple[str, ...] = ("", "")) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(plain(cell) for cell in row) for row in rows)]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)


def _architecture(model: VideoModel, facts: Mapping[str, str]) -> str:
    rows = [
        ("architecture", ", ".join(f"{key} {value}" for key, value in asdict(model.architecture).items())),
        ("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}"),
        *_clips(model.preprocessing),
    ]
    return f"## Architecture\n\n{_table([*rows, *facts.items()])}"


def _clips(p: Preprocessing) -> list[tuple[str, str]]:
    resize = f"{p.resize} on the short edge" if isinstance(p.resize, int) else _by(p.resize)
    low, high = p.value_range
    return [
        (
            "clips",
            f"{_count(p.num_frames, 'frame')}, resized to {resize} ({p.interpolation}), centre crop {_by(p.crop)}",
        ),
        ("pixels", f"{p.channel_order}, {low:g} to {high:g}, minus {_list(p.mean)}, divided by {_list(p.std)}"),
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} (height x width)"


def _list(numbers: Iterable[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"


def _classes(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    if len(names) <= _IN_LINE:
        return f"## Classes\n\nIn the order of the outputs: {', '.join(map(plain, names))}"
    lines = "\n".join(f"{i}. {_line(name)}" for i, name in enumerate(names))
    return (
        f"## Classes\n\n<details>\n<summary>{len(names)} classes in the order of the outputs</summary>\n\n"
        f"{lines}\n\n</details>"
    )


def _training(info: CardInfo) -> str:
    if not any((info.data, info.videos, info.start, info.trained, info.settings)):
        return ""
    rows: list[tuple[str, str]] = [("data", info.data or "not stated")]
    rows += [(f"{side} videos", str(count)) for side, count in info.videos.items()]
    counts = info.class_videos
    if 0 < len(counts) <= _IN_LINE:
        rows.append(("training videos by class", ", ".join(f"{name} {count}" for name, count in counts.items())))
    elif counts:
        rows.append(("training videos by class", f"{min(counts.values())} to {max(counts.values())}"))
    rows.append(("started from", info.start or info.base_model or "not stated"))
    rows += [("trained", info.trained)] if info.trained else []
    return f"## Training\n\n{_table([*rows, *info.settings.items()])}"


def _scores(scores: tuple[Score, ...]) -> str:
    if not scores:
        return "## Scores\n\nNone measured."
    rows = [
        (
            f"{score.side} {measure}",
            f"{value:.4f}",
            f"{_count(score.videos, 'video')}, {_count(score.clips, 'clip')} each",
        )
        for score in scores
        for measure, value in score.hits.items()
    ]
    return f"## Scores\n\n{_table(rows, ('', 'measured', 'on'))}\n\n{_PROTOCOL}"


def _limits(model: VideoModel, info: CardInfo) -> str:
    limits = [
        f"It knows its {model.architecture.num_classes} classes and nothing else: its probabilities over them add up "
        "to 1 whatever a video shows."
    ]
    if info.scores:
        limits.append("It was measured on videos of the data above; other cameras, places and habits were not tried.")
    if not (info.trained or info.start or info.base_model or info.scores):
        limits.append(
            "It is not stated where its numbers come from. If they are random, labels and features are noise."
        )
    frames = model.preprocessing.num_frames
    if frames > 1:
        limits.append(f"One clip is {frames} frames: a motion that takes longer shows only as the mean over clips.")
    else:
        limits.append("It sees single frames: classes that differ by motion alone look the same to it.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in limits)


def _citation(name: str) -> str:
    papers = [_P3D_PAPER, _C3D_PAPER] if name.startswith("c3d") else [_P3D_PAPER]
    return "## Citation\n\n```bibtex\n" + "\n\n".join(papers) + "\n```"
