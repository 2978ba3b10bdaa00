"""Which head a run keeps, and what is said of weights whose classes are not the data's."""

import pytest
import torch
from tiny import small_config

from pseudo3d import Pseudo3dError, create_model, from_pretrained, save_pretrained
from pseudo3d.training.build import build_model

NAMES = ("archery", "bowling", "cricket", "diving", "fencing")


@pytest.fixture
def named(tmp_path):
    """A pretrained folder of a network with five classes."""
    model = create_model("p3d_resnet14", num_classes=len(NAMES))
    model.class_names = NAMES
    model.preprocessing = model.preprocessing.with_size(32)
    save_pretrained(model, tmp_path / "named")
    return tmp_path / "named"


def build(weights, class_names, **changes):
    return build_model(small_config("finetune", weights=str(weights), **{"head": "auto", **changes}), class_names)


def test_the_head_of_the_same_classes_is_kept(named):
    model = build(named, NAMES)
    assert torch.equal(model.fc.weight, from_pretrained(named).fc.weight)
    assert build(named, ("a", "b"), head="new").class_names == ("a", "b")


def test_blocks_are_those_of_the_weights(tmp_path):
    save_pretrained(create_model("p3d_resnet14", num_classes=2, blocks="CA"), tmp_path / "ca")
    assert build(tmp_path / "ca", ("a", "b"), head="new").architecture.blocks == "CA"
    with pytest.raises(Pseudo3dError, match=r"are for blocks 'CA', the model has 'ABC'; leave blocks out, or use c"):
        build(tmp_path / "ca", ("a", "b"), head="new", blocks="ABC")
    with pytest.raises(Pseudo3dError, match=r"looks like .*p3d_resnet14.*, the model is resnet14; use p3d_resnet14"):
        build(tmp_path / "ca", ("a", "b"), head="new", model="resnet14")
    assert build_model(small_config(), ("a", "b")).architecture.blocks == "ABC"


@pytest.mark.parametrize("recipe", ["scratch", "finetune"])
def test_a_new_head_begins_as_the_recipe_says(named, recipe):
    classes = tuple(map(str, range(50)))  # 50 * 2048 numbers: their deviation is known to half a percent
    start = {"weights": str(named), "head": "new"} if recipe == "finetune" else {}
    for given, std in ((None, 0.01), (0.001, 0.001), (0.0, 0.0)):
        model = build_model(small_config(recipe, head_std=given, **start), classes)
        assert model.fc.weight.std().item() == pytest.approx(std, rel=0.02)
        assert not model.fc.bias.any()
    assert torch.equal(build(named, NAMES, head_std=0.001).fc.weight, from_pretrained(named).fc.weight)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (
            (*NAMES[:3], "plunging", "fencing"),
            "not the data's: only the weights have 'diving' and only the data have 'plunging'; use --head new",
        ),
        (NAMES[:4], "not the data's: only the weights have 'fencing'; use --head new"),
        ((*NAMES, "golf"), "not the data's: only the data have 'golf'; use --head new"),
        (
            ("a", "b", "c", "d"),
            "only the weights have 'archery', 'bowling', 'cricket', ... and only the data have 'a',",
        ),
        (
            (*NAMES[:3], "fencing", "diving"),
            "the data's in another order: number 3 is 'diving' there and 'fencing' in the data; use --head new",
        ),
    ],
)
def test_other_classes_are_named(named, class_names, message):
    with pytest.raises(Pseudo3dError) as error:
        build(named, class_names)
    text = str(error.value)
    assert text.startswith(f"{named}")
    assert message in text
    assert "\n" not in text
    assert "head='new'" not in text  # that is Python


def test_a_head_without_names_must_have_as_many_classes(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(create_model("p3d_resnet14", num_classes=3).state_dict(), path)
    with pytest.raises(Pseudo3dError, match=r"weights\.pth: its head has 3 classes and the data 2; use --head new"):
        build(path, ("a", "b"), size=32)
    assert build(path, ("a", "b", "c"), size=32).class_names == ("a", "b", "c")


def test_weights_without_a_head(tmp_path):
    path = tmp_path / "weights.pth"
    state = create_model("p3d_resnet14", num_classes=3).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, path)
    with pytest.raises(Pseudo3dError, match=r"weights\.pth: has no head that --head auto could keep; use --head new$"):
        build(path, ("a", "b"), size=32)
