"""The model card: its YAML is read back, its Markdown is rendered, by other people's parsers."""

import re
import socket
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tiny import names, small_config

from pseudo3d import create_model, from_pretrained, save_pretrained
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.training.cards import run_card, write_card
from pseudo3d.training.sides import Sides
from pseudo3d.weights.card import CardInfo, Score, card_text, plain

NASTY = (
    "none: other",
    'it\'s "so"',
    "- a\nb",
    "# 1. x|y",
    "<b>*走*</b> & _co_",
    "1. [a](b) `c` \\ ~~$d$~~",
    "\ud800\x07e",
)


@pytest.fixture
def model():
    return create_model("resnet14", num_classes=len(NASTY))


def parsed(card):
    """The YAML header and the Markdown below it."""
    _, header, body = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(header), body


def shown(body):
    """The text of a Markdown document as a reader sees it, a line for each block, list item or table cell."""
    lines = []
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        if token.type == "inline":
            assert {child.type for child in token.children} <= {"text", "code_inline", "softbreak"}, token.content
            lines.append("".join("\n" if child.type == "softbreak" else child.content for child in token.children))
        elif token.type == "fence":
            lines.append(token.content)
    return lines


def test_of_a_bare_network(model, monkeypatch):
    def no_network(*_):
        raise AssertionError("a model card is written without any network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    card = card_text(model)
    header, body = parsed(card)
    assert header == {
        "library_name": "pseudo3d",
        "pipeline_tag": "video-classification",
        "tags": ["video", "action-recognition", "resnet14"],
    }
    lines = shown(body)
    assert lines[0] == "resnet14"
    assert "Not stated." in lines  # the licence
    assert "None measured." in lines
    assert "It is not stated where its numbers come from. If they are random, labels and features are noise." in lines
    assert "7 outputs without names" in body
    assert "Training" not in lines
    assert "Classes" not in lines
    assert f"{sum(p.numel() for p in model.parameters()):,}" in lines
    assert "p3d predict VIDEO --weights FOLDER" in body
    assert "It sees single frames: classes that differ by motion alone look the same to it." in lines


INFO = CardInfo(
    data='my: "videos"\n走',
    datasets=("me/fights",),
    videos={"train": 30, "val": 5, "test": 10},
    class_videos={"a": 10, "b|c": 20},
    start="ImageNet's 2-D ResNet",
    base_model="timm/resnet50.tv_in1k",
    trained="recipe finetune, epoch 3 of 60",
    settings={"batch": "16 clips"},
    scores=(
        Score("val", 5, 4, {"clip hit@1": 0.5, "video hit@1": 0.61234}),
        Score("test", 10, 20, {"clip hit@1": 0.4, "video hit@1": 0.45, "video hit@5": 1.0}),
    ),
    license="cc-by-4.0",
)


def test_the_header_is_what_the_hub_reads(model):
    model.class_names = NASTY
    card = card_text(model, INFO, source="hf:me/nets")
    header, _ = parsed(card)
    results = header.pop("model-index")
    assert header == {
        "library_name": "pseudo3d",
        "pipeline_tag": "video-classification",
        "tags": ["video", "action-recognition", "resnet14"],
        "license": "cc-by-4.0",
        "datasets": ["me/fights"],
        "base_model": "timm/resnet50.tv_in1k",
        "metrics": ["accuracy"],
    }
    dataset = {"name": 'my: "videos"\n走', "type": "me/fights"}
    val, test = {"videos": 5, "clips per video": 4}, {"videos": 10, "clips per video": 20}
    assert results == [
        {
            "name": "me/nets",
            "results": [
                {
                    "task": {"type": "video-classification"},
                    "dataset": {**dataset, "split": "validation"},
                    "metrics": [
                        {"type": "accuracy", "name": "clip hit@1", "value": 0.5, "args": val},
                        {"type": "accuracy", "name": "video hit@1", "value": 0.6123, "args": val},
                    ],
                },
                {
                    "task": {"type": "video-classification"},
                    "dataset": {**dataset, "split": "test"},
                    "metrics": [
                        {"type": "accuracy", "name": "clip hit@1", "value": 0.4, "args": test},
                        {"type": "accuracy", "name": "video hit@1", "value": 0.45, "args": test},
                        {"type": "top_5_accuracy", "name": "video hit@5", "value": 1.0, "args": test},
                    ],
                },
            ],
        }
    ]
    assert [result.metric_value for result in ModelCard(card).data.eval_results] == [0.5, 0.6123, 0.4, 0.45, 1.0]


@pytest.mark.parametrize(
    ("said", "header"),
    [
        ("mit", {"license": "mit"}),
        ("CC BY 4.0: mine", {"license": "other", "license_name": "CC BY 4.0: mine"}),
        ('for "research"\nonly', {"license": "other", "license_name": 'for "research"\nonly'}),
        (None, {}),
    ],
)
def test_the_licence_is_what_was_said_or_none(model, said, header):
    got, body = parsed(card_text(model, CardInfo(license=said)))
    assert {key: value for key, value in got.items() if key.startswith("license")} == header
    assert " ".join((said or "Not stated.").split()) in shown(body)


def test_the_body(model):
    model.class_names = NASTY
    lines = shown(parsed(card_text(model, INFO, source="hf:me/nets", facts={"seen | by": "<me>"}))[1])
    assert lines[0] == "nets"
    assert any('pseudo3d.from_pretrained("hf:me/nets")' in line for line in lines)
    expected = ["data", 'my: "videos" 走', "train videos", "30", "val videos", "5", "test videos", "10",
                "training videos by class", "a 10, b|c 20", "started from", "ImageNet's 2-D ResNet",
                "trained", "recipe finetune, epoch 3 of 60", "batch", "16 clips"]  # fmt: skip
    start = lines.index("Training") + 3  # an empty head of two cells
    assert lines[start : start + len(expected)] == expected
    start = lines.index("Scores") + 4
    assert lines[start : start + 6] == ["val clip hit@1", "0.5000", "5 videos, 4 clips each",
                                        "val video hit@1", "0.6123", "5 videos, 4 clips each"]  # fmt: skip
    assert lines[lines.index("seen | by") + 1] == "<me>"
    assert "1 frame, resized to 240x320 (height x width) (bilinear), centre crop 224x224 (height x width)" in lines
    assert "BGR, 0 to 255, minus (104, 117, 123), divided by (1, 1, 1)" in lines
    assert "It was measured on videos of the data above; other cameras, places and habits were not tried." in lines
    assert not any("noise" in line for line in lines)


def as_shown(name):
    return " ".join(name.replace("\ud800", "?").replace("\x07", "?").split())


@pytest.mark.parametrize("copies", [1, 20])
def test_class_names_come_out_as_they_are(copies):
    model = create_model("resnet14", num_classes=len(NASTY) * copies)
    model.class_names = tuple(f"{name}{i}" for i in range(copies) for name in NASTY)
    body = parsed(card_text(model))[1]
    lines = shown(re.sub(r"</?(details|summary)>", "", body))
    names_shown = [as_shown(name) for name in model.class_names]
    if copies == 1:
        assert f"In the order of the outputs: {', '.join(names_shown)}" in lines
        return
    assert "<summary>140 classes in the order of the outputs</summary>" in body
    start = lines.index(names_shown[0])
    assert lines[start : start + len(names_shown)] == names_shown
    numbered = [token for token in MarkdownIt().parse(body) if token.type == "ordered_list_open"]
    assert [token.attrs for token in numbered] == [{"start": 0}]  # an item's number is the index of the output


@given(st.text(max_size=30))
def test_any_text_is_shown_as_it_is(text):
    got = shown(f"x{plain(text)}x")
    visible = "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
    assert got == [f"x{' '.join(visible.split())}x"]


def test_who_is_cited(model):
    assert "qiu2017learning" in card_text(model)
    assert "tran2015learning" not in card_text(model)
    model.architecture = replace(model.architecture, name="c3d")
    assert "Learning Spatiotemporal Features with 3D Convolutional Networks" in card_text(model)
    assert "qiu2017learning" in card_text(model)


def test_of_a_run(tmp_path):
    def side(name, count):
        samples = tuple(Sample(f"{label}{i}.mkv", label, name) for i in range(count) for label in ("left", "right"))
        return SampleList(tmp_path / "private place" / "turns", samples, ("left", "right"))

    sides = Sides(side("train", 9), side("val", 3), side("test", 4))
    config = replace(small_config(epochs=60), model="p3d_resnet14")
    card = run_card(config, sides, epoch=3, val={"clip hit@1": 0.25, "video hit@1": 0.5})
    assert card.data == "turns"
    assert card.videos == {"train": 18, "val": 6, "test": 8}
    assert card.class_videos == {"left": 9, "right": 9}
    assert (card.start, card.base_model, card.license) == ("random weights", None, None)
    model = create_model("p3d_resnet14", num_classes=2)
    model.class_names = ("left", "right")
    save_pretrained(model, tmp_path / "best", card=card)
    text = (tmp_path / "best" / "README.md").read_text()
    assert "recipe scratch, epoch 3 of 60" in text
    assert "| val video hit@1 | 0.5000 | 6 videos, 1 clip each |" in text
    assert "adamw, learning rate 0.001 (cosine, 1 epochs of warm-up), weight decay 0.05" in text
    assert "private place" not in text
    before = (tmp_path / "best" / "model.safetensors").stat()

    write_card(
        model, tmp_path / "best", run_card(replace(config, license="mit"), sides, epoch=3, test={"video hit@1": 0.75})
    )
    header, body = parsed((tmp_path / "best" / "README.md").read_text())
    assert "| test video hit@1 | 0.7500 | 8 videos, 1 clip each |" in body
    assert header["license"] == "mit"
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == "turns"
    assert (tmp_path / "best" / "model.safetensors").stat() == before
    assert names(tmp_path / "best") == ["README.md", "config.json", "model.safetensors"]
    assert from_pretrained(tmp_path / "best").class_names == ("left", "right")


@pytest.mark.parametrize(
    ("weights", "start", "base"),
    [
        ("imagenet", "ImageNet's 2-D ResNet", "timm/resnet101.tv_in1k"),
        ("hf:me/nets@v1", "me/nets, revision v1", "me/nets"),
        ("me/nets", "me/nets", "me/nets"),
        ("/home/me/net.pth", "net.pth", None),
        ("/home/me/first/checkpoints/best", "first/checkpoints/best", None),
    ],
)
def test_what_a_run_started_from(tmp_path, weights, start, base):
    empty = SampleList(tmp_path, (), ("a",))
    config = replace(small_config("finetune"), model="p3d_resnet101", weights=weights)
    card = run_card(config, Sides(empty, None, empty), epoch=1)
    assert (card.start, card.base_model) == (start, base)
    assert "val" not in card.videos
