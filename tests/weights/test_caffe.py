"""Networks out of Caffe's files: names, shapes, connections, both ways. The files are made by tests/caffe_files.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from caffe_files import blob, layer, net, v1_layer
from caffe_nets import random_blobs, tensors, with_splits, write_net
from reference import relative_error

from pseudo3d import Pseudo3dError, create_model, load_model, load_weights
from pseudo3d.preprocessing import CAFFE_MEAN_BGR
from pseudo3d.weights.caffe import caffe_slots
from pseudo3d.weights.caffemodel import CaffeModel
from pseudo3d.weights.export import export_caffemodel
from pseudo3d.weights.layer_rules import make_layer_table
from pseudo3d.weights.layer_table import read_layer_table, run_layer_table
from pseudo3d.weights.verify import verify_weights


def test_split_layers():
    """A block C as Caffe saves it: S goes to T and to the sum through a Split layer, and so does the block's input."""
    layers = {name: (kind, bottoms) for name, kind, bottoms, _ in with_splits(read_layer_table())}
    assert layers["res2c_branch2b_t"] == ("Convolution", ["bn2c_branch2b_res2c_branch2b_relu_0_split_0"])
    assert layers["bn2c_branch2b_res2c_branch2b_relu_0_split"] == ("Split", ["bn2c_branch2b"])
    assert layers["res2c_branch2b_st"][1] == ["bn2c_branch2b_res2c_branch2b_relu_0_split_1", "bn2c_branch2b_t"]
    assert layers["res2a_branch2a"][1] == ["pool1_pool1_0_split_1"]


@pytest.fixture(scope="module")
def p3d(tmp_path_factory):
    rows = make_layer_table("p3d_resnet14", num_classes=5, head="fc_kinetics")
    blobs = random_blobs(rows)
    return write_net(tmp_path_factory.mktemp("p3d") / "p3d.caffemodel", rows, blobs), rows, blobs


@torch.no_grad()
def test_the_authors_p3d(p3d):
    path, rows, blobs = p3d
    model = load_model("auto", path)
    architecture = model.architecture
    assert (architecture.name, architecture.style, architecture.num_classes) == ("p3d_resnet14", "caffe", 5)
    assert model.class_names is None
    p = model.preprocessing
    assert (p.mean, p.channel_order, p.resize, p.crop) == (CAFFE_MEAN_BGR, "BGR", 162, (160, 160))
    clips = torch.randn(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0)) * 60
    expected = run_layer_table(rows, tensors(blobs), clips, {"pool5", "prob"})
    for name, value in model.forward_features(clips, ("pool5", "prob")).items():
        assert relative_error(value, expected[name]) < 1e-4, name


def test_the_flow_network(tmp_path):
    rows = make_layer_table("p3d_resnet14", num_classes=5, head="fc_kinetics")
    path = write_net(tmp_path / "flow.caffemodel", rows, random_blobs(rows, in_channels=2))
    model = load_model("p3d_resnet14", path)
    assert model.architecture.in_channels == 2
    assert model.preprocessing.mean == (128.0, 128.0)
    with pytest.raises(Pseudo3dError, match=r"take 2 input channels, the model 3"):
        load_weights(create_model("p3d_resnet14", num_classes=5), path)


@torch.no_grad()
def test_loading_puts_every_number_in_its_place(p3d):
    path, _, blobs = p3d
    model = load_model("auto", path)
    assert np.array_equal(model.res3[0].conv_t.weight, blobs["res3a_branch2b_t"][0][..., 0])
    assert np.array_equal(model.res5[0].conv_s.weight, blobs["res5a_branch2b"][0])
    assert np.array_equal(model.res2[0].bn_shortcut.running_var, blobs["bn2a_branch1"][3][0])
    assert np.array_equal(model.stem.bn_conv1.weight, blobs["bn_conv1"][0][0])
    report = load_weights(create_model("p3d_resnet14", num_classes=5), path)
    assert (len(report.loaded), report.initialised, report.dropped) == (len(list(blobs)) - 1 + 3 * 20 + 2, (), ())


@pytest.mark.parametrize("blocks", ["A", "B", "CAB", "CB"])
def test_the_connections_say_the_block_order(tmp_path, blocks):
    rows = make_layer_table("p3d_resnet14", num_classes=2, head="fc", blocks=blocks)
    path = write_net(tmp_path / "p3d.caffemodel", rows, random_blobs(rows))
    kinds = [block.kind for stage in ("res2", "res3", "res4") for block in getattr(load_model("auto", path), stage)]
    assert kinds == [blocks[i % len(blocks)] for i in range(3)]
    with pytest.raises(Pseudo3dError, match=r"these weights are for blocks '.*', the model has 'ABC'"):
        load_weights(create_model("p3d_resnet14", num_classes=2), path)


@pytest.fixture(scope="module")
def he(tmp_path_factory):
    """He et al.'s layout, with the bias that conv1 of their ResNet-50 has."""
    rows = make_layer_table("resnet14", num_classes=5, head="fc1000")
    blobs = random_blobs(rows)
    blobs["conv1"].append(np.linspace(-1, 1, 64, dtype=np.float32))
    return write_net(tmp_path_factory.mktemp("he") / "ResNet-14-model.caffemodel", rows, blobs), rows, blobs


@torch.no_grad()
def test_he_et_als_resnet(he):
    path, rows, blobs = he
    model = load_model("auto", path)
    assert (model.architecture.name, model.architecture.style) == ("resnet14", "caffe")
    assert model.preprocessing.mean == CAFFE_MEAN_BGR
    frame = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 60
    expected = run_layer_table(rows, tensors(blobs), frame, {"pool5", "fc1000"})
    got = model.forward_features(frame[:, :, None], ("pool5", "logits"))
    assert relative_error(got["pool5"], expected["pool5"]) < 1e-4
    assert relative_error(got["logits"], expected["fc1000"]) < 1e-4


@torch.no_grad()
def test_he_et_als_resnet_becomes_p3d(he):
    path, *_ = he
    frames, model = load_model("auto", path), load_model("p3d_resnet14", path)
    frame = torch.randn(1, 3, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 60
    expected = frames.forward_features(frame)["pool5"]
    assert relative_error(model.forward_features(frame.expand(-1, -1, 16, -1, -1))["pool5"], expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet50", ["2a", "2c", "3d", "4f", "5c"]),
        ("resnet101", ["2a", "2c", "3b3", "4b22", "5c"]),
        ("resnet152", ["2a", "2c", "3b7", "4b35", "5c"]),
        ("p3d_resnet152", ["2a", "2c", "3b7", "4b35", "5c"]),
    ],
)
def test_published_names_of_blocks(name, blocks):
    """He et al.'s and the authors' definitions letter short stages and number long ones, in 101 layers res3 too."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in create_model(name).state_dict().items()}
    layers = {layer for layer, _ in caffe_slots(shapes).values()}
    assert {f"res{block}_branch2c" for block in blocks} <= layers
    assert f"res{blocks[3][:-1]}{int(blocks[3][-1]) + 1}_branch2a" not in layers if blocks[3][-1].isdigit() else True
    assert ({"fc1000", "scale2a_branch1"} if name.startswith("resnet") else {"fc_sports1m"}) <= layers


def c3d_blobs():
    rng = np.random.default_rng(0)
    widths = {"1a": (64, 3), "2a": (128, 64), "3a": (256, 128), "3b": (256, 256), "4a": (512, 256), "4b": (512, 512),
              "5a": (512, 512), "5b": (512, 512)}  # fmt: skip
    blobs = {f"conv{name}": (*shape, 3, 3, 3) for name, shape in widths.items()}
    blobs |= {"fc6-1": (4096, 8192), "fc7-1": (4096, 4096), "fc8-1": (9, 4096)}
    return {
        name: [rng.standard_normal(shape, np.float32) * np.float32(1.4 * np.prod(shape[1:]) ** -0.5),
               rng.standard_normal(shape[0], np.float32) * np.float32(0.1)]
        for name, shape in blobs.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def c3d(tmp_path_factory):
    """The release's own dialect, without a suffix, as its file has none; and a mean volume beside it."""
    folder, blobs = tmp_path_factory.mktemp("c3d"), c3d_blobs()
    types = {name: 30 if name.startswith("conv") else 14 for name in blobs}
    layers = [v1_layer(name, types[name], arrays, c3d=True) for name, arrays in blobs.items()]
    (folder / "conv3d_deepnetA_sport1m_iter_1900000").write_bytes(net("C3D", layers))
    volume = np.random.default_rng(1).uniform(80, 120, (1, 3, 16, 128, 171)).astype(np.float32)
    (folder / "mean.binaryproto").write_bytes(blob(volume, c3d=True))
    return folder / "conv3d_deepnetA_sport1m_iter_1900000", folder / "mean.binaryproto", blobs, volume


@torch.no_grad()
def test_the_c3d_release(c3d):
    path, mean, blobs, volume = c3d
    model = load_model("auto", path, mean_file=mean)
    assert (model.architecture.name, model.architecture.num_classes) == ("c3d", 9)
    assert np.array_equal(model.mean_volume, volume[0])
    assert np.array_equal(model.conv3b.weight, blobs["conv3b"][0])
    assert np.array_equal(model.fc6.bias, blobs["fc6-1"][1])
    clip = torch.randn(1, 3, 16, 112, 112, generator=torch.Generator().manual_seed(0)) * 60
    rows = make_layer_table("c3d", num_classes=9, head="fc8-1")
    expected = run_layer_table(rows, tensors(blobs), clip, {"fc6-1", "prob"})
    got = model.forward_features(clip, ("fc6", "prob"))
    assert relative_error(got["fc6"], expected["fc6-1"]) < 1e-4
    assert relative_error(got["prob"], expected["prob"]) < 1e-4


def test_a_mean_that_does_not_fit(c3d, p3d, tmp_path):
    (tmp_path / "mean.binaryproto").write_bytes(blob(np.zeros((1, 3, 16, 100, 171), np.float32), c3d=True))
    with pytest.raises(
        Pseudo3dError, match=r"mean volume has shape \(3, 16, 100, 171\), C3D needs \(3, 16, 128, 171\)"
    ):
        load_model("auto", c3d[0], mean_file=tmp_path / "mean.binaryproto")
    (tmp_path / "two.binaryproto").write_bytes(blob(np.zeros((1, 2, 8, 8), np.float32)))
    with pytest.raises(Pseudo3dError, match=r"a mean of shape \(2, 8, 8\) does not fit a network of 3 input channels"):
        load_model("auto", p3d[0], mean_file=tmp_path / "two.binaryproto")


def test_a_mean_image_gives_the_means_of_its_channels(he, tmp_path):
    image = np.stack([np.full((4, 4), level, np.float32) for level in (103, 116, 122)])
    image[0, 0, 0] += 16
    (tmp_path / "ResNet_mean.binaryproto").write_bytes(blob(image[None], legacy=True))
    assert load_model("auto", he[0], mean_file=tmp_path / "ResNet_mean.binaryproto").preprocessing.mean == (
        104,
        116,
        122,
    )


@pytest.mark.parametrize("name", ["p3d_resnet14", "resnet14"])
def test_export_is_read_back_bit_equal(tmp_path, name, p3d, he):
    model = load_model("auto", (p3d if name.startswith("p3d") else he)[0])
    again = load_model("auto", export_caffemodel(model, tmp_path / "out.caffemodel"))
    assert again.architecture == model.architecture
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_export_of_the_authors_file_is_the_authors_file(tmp_path, p3d):
    """Names, types, connections, shapes and numbers of every layer."""
    path, rows, _ = p3d
    export_caffemodel(load_model("auto", path), tmp_path / "out.caffemodel")
    with CaffeModel(path) as theirs, CaffeModel(tmp_path / "out.caffemodel") as ours:
        assert len(ours.layer_names) == len(rows)
        for row, other in zip(rows, ours, strict=True):
            one = theirs.layer(row.name)
            name = {"fc_kinetics": "fc"}.get(one.name, one.name)  # the published name is that of 400 classes
            assert (name, one.type, len(one.blobs)) == (other.name, other.type, len(other.blobs))
            assert [{"fc_kinetics": "fc"}.get(bottom, bottom) for bottom in row.bottoms] == list(other.bottoms)
            assert all(np.array_equal(a, b) for a, b in zip(one.blobs, other.blobs, strict=True))


def test_only_caffes_style_is_exported(tmp_path):
    model = create_model("p3d_resnet14", num_classes=2, style="torchvision")
    with pytest.raises(Pseudo3dError, match=r"computes style 'caffe', the model has style 'torchvision'"):
        export_caffemodel(model, tmp_path / "out.caffemodel")
    assert not list(tmp_path.iterdir())


def test_class_names(p3d, tmp_path):
    path, *_ = p3d
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    assert load_model("auto", path, class_names=tmp_path / "labels.txt").class_names == ("a", "b", "c", "d", "e")
    with pytest.raises(Pseudo3dError, match=r"class_names: 2 class names, but .*p3d\.caffemodel has 5 classes"):
        load_model("auto", path, class_names=["a", "b"])
    (tmp_path / "labels.txt").write_text("a\nb\nb\nd\ne\n")
    with pytest.raises(Pseudo3dError, match=r"labels\.txt: b stands there more than once"):
        load_model("auto", path, class_names=tmp_path / "labels.txt")
    with pytest.raises(Pseudo3dError, match=r"label\.txt: no such file of class names; did you mean .*labels\.txt\?"):
        load_model("auto", path, class_names=tmp_path / "label.txt")


def changed(p3d, tmp_path, *, drop=(), add=()):
    _, rows, blobs = p3d
    kept = [row for row in rows if row.name not in drop]
    layers = [layer(r.name, r.type, blobs.get(r.name, []), bottoms=r.bottoms, tops=[r.top]) for r in kept]
    (tmp_path / "changed.caffemodel").write_bytes(net("x", [*layers, *add]))
    return tmp_path / "changed.caffemodel"


def test_wrong_networks(p3d, tmp_path):
    vgg = [
        layer("conv1_1", "Convolution", [np.zeros((64, 3, 3, 3))]),
        layer("fc8", "InnerProduct", [np.zeros((10, 10))]),
    ]
    (tmp_path / "vgg.caffemodel").write_bytes(net("VGG", vgg))
    with pytest.raises(
        Pseudo3dError, match=r"vgg\.caffemodel: a Caffe model, but none of P3D.*its layers are conv1_1, fc8"
    ):
        load_model("auto", tmp_path / "vgg.caffemodel")
    with pytest.raises(Pseudo3dError, match=r"looks like p3d_resnet14 \(5 classes.*the model is p3d_resnet50"):
        load_model("p3d_resnet50", p3d[0])
    with pytest.raises(Pseudo3dError, match=r"not there \(res3\.0\.conv_s\.weight\); is it a damaged file"):
        load_model("auto", changed(p3d, tmp_path, drop=["res3a_branch2b"]))
    extra = layer("res3a_branch2d", "Convolution", [np.zeros((1, 1))])
    with pytest.raises(Pseudo3dError, match=r"1 arrays are not the model's \(res3a_branch2d\[0\]\)"):
        load_model("auto", changed(p3d, tmp_path, add=[extra]))
    head = layer("fc_sports1m", "InnerProduct", [np.zeros((1, 1)), np.zeros(1)])
    with pytest.raises(Pseudo3dError, match=r"has several heads \(fc_kinetics, fc_sports1m\); keep one"):
        load_model("auto", changed(p3d, tmp_path, add=[head]))
    same = (
        layer("res3b_branch2a", "Convolution", [np.zeros((1, 1))]),
        layer("res3b1_branch2a", "Convolution", [np.zeros(1)]),
    )
    with pytest.raises(Pseudo3dError, match=r"the layers res3b_branch2a and res3b1_branch2a are the same to us"):
        load_model("auto", changed(p3d, tmp_path, add=same))


def test_no_head(p3d, tmp_path):
    path = changed(p3d, tmp_path, drop=["fc_kinetics"])
    with pytest.raises(Pseudo3dError, match=r"has no head, the model one of 487; pass head='new'"):
        load_model("auto", path)
    assert load_model("auto", path, head="new", num_classes=2).architecture.num_classes == 2


@pytest.mark.slow
@torch.no_grad()
def test_the_real_p3d_resnet152(tmp_path):
    """All 693 layers at their real sizes, under the names that were written down from the release."""
    rows = read_layer_table()
    blobs = random_blobs(rows)
    model = load_model("auto", write_net(tmp_path / "p3d_resnet_sports1m.caffemodel", rows, blobs))
    assert model.architecture.name == "p3d_resnet152"
    assert model.architecture.num_classes == 487
    clips = torch.randn(1, 3, 16, 160, 160, generator=torch.Generator().manual_seed(0)) * 60
    expected = run_layer_table(rows, tensors(blobs), clips, {"pool5"})["pool5"]
    assert relative_error(model.forward_features(clips)["pool5"], expected) < 1e-4


def test_a_block_that_is_none_of_the_three(p3d, tmp_path):
    _, rows, blobs = p3d
    crooked = [replace(row, bottoms=("pool1",)) if row.name == "res2a_branch2b_t" else row for row in rows]
    path = write_net(tmp_path / "crooked.caffemodel", crooked, blobs)
    with pytest.raises(
        Pseudo3dError, match=r"block 2a is none of A, B and C: res2a_branch2b_t reads pool1, res2a_branch2c"
    ):
        load_model("auto", path)
    crooked = [replace(row, bottoms=("pool1",)) if row.name == "res3a_branch1" else row for row in rows]
    path = write_net(tmp_path / "crooked.caffemodel", crooked, blobs)
    with pytest.raises(
        Pseudo3dError, match=r"layer res3a_branch1 reads pool1, in the published network 3a_pool; it comp"
    ):
        verify_weights(path)


@pytest.mark.parametrize("blocks", ["ABC", "CB"])
def test_learned_layers_alone_say_the_block_order(tmp_path, blocks):
    rows = make_layer_table("p3d_resnet14", num_classes=2, head="fc", blocks=blocks)
    blobs = random_blobs(rows)
    learned = [row for row in rows if row.name in blobs]
    layers = [layer(r.name, r.type, blobs[r.name], bottoms=r.bottoms, tops=[r.top]) for r in learned]
    (tmp_path / "learned.caffemodel").write_bytes(net("x", layers))
    kinds = [
        getattr(load_model("auto", tmp_path / "learned.caffemodel"), stage)[0].kind
        for stage in ("res2", "res3", "res4")
    ]
    assert kinds == [blocks[i % len(blocks)] for i in range(3)]


def test_without_connections_the_order_is_assumed(p3d, tmp_path):
    _, rows, blobs = p3d
    (tmp_path / "bare.caffemodel").write_bytes(
        net("x", [layer(row.name, row.type, blobs.get(row.name, [])) for row in rows])
    )
    with pytest.warns(UserWarning, match=r"does not say what it was trained as; blocks 'ABC' assumed"):
        load_model("auto", tmp_path / "bare.caffemodel")


@pytest.mark.parametrize(
    ("third", "words"), [([], r"its third blob is \[\]"), ([np.nan], "nan"), ([1, 2], "not one finite")]
)
def test_a_batch_norm_with_another_divisor(he, tmp_path, third, words):
    _, rows, blobs = he
    changed = blobs | {"bn_conv1": [*blobs["bn_conv1"][:2], np.array(third, np.float32)]}
    with pytest.raises(Pseudo3dError, match=words):
        load_model("auto", write_net(tmp_path / "x.caffemodel", rows, changed))


def test_a_divisor_of_zero_means_no_statistics(he, tmp_path):
    """As Caffe has it: mean and variance are 0 then."""
    _, rows, blobs = he
    changed = blobs | {"bn2a_branch2a": [*blobs["bn2a_branch2a"][:2], np.zeros(1, np.float32)]}
    path = write_net(tmp_path / "x.caffemodel", rows, changed)
    assert not load_model("auto", path).res2[0].bn_a.running_var.any()
    assert verify_weights(path).passed


def test_a_bias_of_another_size(he, tmp_path):
    _, rows, blobs = he
    changed = blobs | {"conv1": [blobs["conv1"][0], np.zeros(1, np.float32)]}
    with pytest.raises(Pseudo3dError, match=r"layer conv1: a bias of 1 numbers does not fit its batch norm"):
        load_model("auto", write_net(tmp_path / "x.caffemodel", rows, changed))


def test_c3d_loaded_again_without_a_mean_has_its_channel_means(c3d):
    model = load_model("auto", c3d[0], mean_file=c3d[1])
    load_weights(model, c3d[0])
    for channel, mean in enumerate((90.25, 97.66, 101.41)):
        assert torch.equal(model.mean_volume[channel], torch.full((16, 128, 171), mean))
