import json

import pytest

from pseudo3d import Preprocessing, Pseudo3dError


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(),
        Preprocessing(
            num_frames=1,
            resize=(240, 320),
            crop=(224, 224),
            mean=(0.5,) * 3,
            std=(0.1, 0.2, 0.3),
            channel_order="RGB",
            value_range=(0.0, 1.0),
            interpolation="area",
        ),
    ],
)
def test_through_json(preprocessing):
    again = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))
    assert again == preprocessing
    assert hash(again) == hash(preprocessing)  # lists became tuples again


def test_left_out_fields_have_their_defaults():
    assert Preprocessing.from_dict({"num_frames": 1}) == Preprocessing(num_frames=1)


def test_with_size():
    p = Preprocessing(num_frames=8, mean=(1.0, 2.0, 3.0)).with_size(48)
    assert (p.resize, p.crop, p.num_frames, p.mean) == ((48, 48), (48, 48), 8, (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_frames": 0}, "num_frames must be positive.* got 0"),
        ({"crop": (0, 4)}, r"got 16, \(0, 4\) and 162"),
        ({"crop": (160,)}, r"crop \(height, width\)"),
        ({"resize": (240,)}, "resize such a pair or one number"),
        ({"resize": -1}, "and -1"),
        ({"crop": (160, 163)}, r"the crop \(160, 163\) does not fit into frames resized to 162"),
        ({"resize": (150, 300)}, r"does not fit into frames resized to \(150, 300\)"),
        ({"channel_order": "GBR"}, "channel_order must be 'RGB' or 'BGR', got 'GBR'"),
        ({"interpolation": "lanczos"}, "interpolation must be bilinear, bicubic, area or fast_bilinear, got 'lanczos'"),
        ({"value_range": (1.0, 0.0)}, "low below high"),
        ({"value_range": (1.0,)}, "low below high"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"mean": (1.0,)}, "one number a channel"),
        ({"crops": 2, "flip": True}, r"unknown fields \['crops', 'flip'\]: was it written by a newer pseudo3d"),
    ],
)
def test_wrong_fields(fields, words):
    with pytest.raises(Pseudo3dError, match=words):
        Preprocessing.from_dict(fields)
