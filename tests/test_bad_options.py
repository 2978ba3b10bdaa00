"""Wrong words on the command line: each is told in one line that helps, ends with code 2, and nothing is written."""

import pytest
import torch
from tiny import QUICK, SMALL, mistake, names

pytestmark = pytest.mark.usefixtures("one_thread")


# words of a command line -> words of its one line
WRONG_WORDS = {
    "train --data D --out O --epoch 3": "unknown option --epoch, did you mean --epochs?",
    "train --data D --out O --flip": "unknown option --flip, did you mean --augment.flip?",
    "train --data D --out O --lr 3": "unknown option --lr, did you mean --optim.lr?",
    "train --data D --out O --lr=0.1": "unknown option --lr, did you mean --optim.lr?",
    "train --data D --out O --learning-rate 3": "unknown option --learning-rate, did you mean --optim.lr?",
    "train --data D --out O --optim.learning-rate=3": "unknown option --optim.learning-rate, did you mean --optim.lr?",
    "train --data D --out O --optim.momentun 3": "unknown option --optim.momentun, did you mean --optim.momentum?",
    "train --data D --out O --clip-len 8": "unknown option --clip-len, did you mean --model?",
    "train --data D --out O --num_workers 8": "unknown option --num_workers, did you mean --workers?",
    "train --data D --out O --mixup 0.2": "unknown option --mixup; the nearest is --",
    "train --data D --out O --epochs 3 --iterations 9": "--epochs and --iterations both say how long to train: leave",
    "train --data D --out O --temporal-init identity": "--temporal-init changes nothing without --weights: leave it",
    "train --data D --out O --weights random --head auto": "--head changes nothing without --weights: leave it out",
    "train --data D --out O --weights W --head auto --head-std 1": "--head-std changes nothing with --head auto: leave",
    "train --data D --out O --optim.gamma 0.5": "--optim.gamma changes nothing with --optim.schedule cosine: leave it",
    "train --data D --out O --optim.milestones 0.5": "--optim.milestones changes nothing with --optim.schedule cosine",
    "train --data D --out O --optim.momentum=0.5": "--optim.momentum changes nothing with --optim.name adamw: leave",
    "train --data D --out O --augment.piece_seconds 2": "--augment.piece-seconds changes nothing without --augment.p",
    "train --data D --out O --head-std -1": "--head-std must be at least 0, got -1",
    "train --data D --out O --epochs ten": "--epochs takes a whole number, got 'ten'",
    "train --data D --out O --epochs 1.5": "--epochs takes a whole number, got '1.5'",
    "train --data D --out O --epochs": "--epochs takes a whole number, got nothing",
    "train --data D --out O --optim.lr fast": "--optim.lr takes a number, got 'fast'",
    "train --data D --out O --size big": "--size takes a whole number or None, got 'big'",
    "train --data D --out O --resize 3": "--resize takes two whole numbers or None, got '3'",
    "train --data D --out O --optim.milestones a": "--optim.milestones takes numbers, got 'a'",
    "train --data D --out O --optim.name adam": "--optim.name cannot be 'adam'; it takes adamw, sgd",
    "train --data D --out O --style pytorch": "--style cannot be 'pytorch'; it takes ",
    "train --data D --out O --size 16": "--size must be at least 32, got 16",
    "train --data D --out O --size -5": "--size must be at least 32, got -5",
    "train --data D --out O --epochs 0": "--epochs must be at least 1, got 0",
    "train --data D --out O --seed -1": "--seed must be at least 0, got -1",
    "train --data D --out O --batch-size 1": "--batch-size must be at least 2",
    "train --data D --out O --val-fraction 2": "--val-fraction must be at least 0 and below 1, got 2.0",
    "train --data D --out O --model p3d_resnet51": "no model 'p3d_resnet51'; did you mean 'p3d_resnet50'?",
    "train --data D --out O --model c4d": "no model 'c4d'; did you mean 'c3d'?",
    "train --data D --out O --model c3d": "c3d takes crops of 112x112 out of frames resized to 128x171 only; leave out",
    "train --data D --out O --model c3d --size 112 --resize 182 242": "leave out --size and --resize",
    "train --data D --out O --model c3d --blocks AB": "c3d has no P3D blocks to choose; leave out blocks='AB'",
    "train --data D --out O --model c3d --style port": "c3d: style 'port' is of ResNets",
    "train --data D --out O --blocks ABX": "blocks must be a string over A, B and C such as 'ABC', got 'ABX'",
    "train --data D --out O --weights none": "none: no such file or folder",
    "train --data D --out O --device gpu": "no device 'gpu'; use auto, cpu, cuda",
    "train --data D --out O --freeze-bn": "give them with --weights, or use --no-freeze-bn",
    "train --data D --out O --resize 20 20": "leaves no room for crops of 32x32",
    "train --data D": "--out must be given",
    "train": "--data, --out must be given",
    "train D --out O": "no recipe ",
    "train --data D --out O demo": "one word too many: 'demo'",
    "train finetun --data D --out O": "no recipe 'finetun'; did you mean 'finetune'?",
    "train finetune --data D --out O": "recipe finetune keeps the batch norms of trained weights: give them with",
    "extract D --out O": "--weights must be given",
    "extract D --weights W": "--out must be given",
    "extract --weights W --out O": "no videos named: give files, a folder, or a list (.txt, .csv)",
    "extract D --weigths W --out O": "unknown option --weigths, did you mean --weights?",
    "extract D --weights W --out O --clips 0": "clips must be at least 1, got 0",
    "extract D --weights W --out O --stride 0": "stride must be at least 1, got 0",
    "extract D --weights W --out O --stride 5 --sampler random": "--stride takes a clip every so many frames, and",
    "extract D --weights W --out O --seed 5": "--seed is of --sampler random: give both, or neither",
    "extract D --weights W --out O --workers -1": "workers and slots must be at least 1",
    "extract D --weights W --out O --clips few": "--clips takes a whole number, got 'few'",
    "extract D --weights W --out O --batch-size 0": "batch size must be at least 1, got 0",
    "extract D --weights W --out O --layers pool6": "no layer 'pool6'; this network has res2, res3, res4, res5, pool5,",
    "extract D --weights W --out O --layers ,": "layers is empty; ask for at least one of",
    "extract D --weights W --out O --dtype float64": "--dtype cannot be 'float64'; it takes auto, float32, bfloat16",
    "extract D --weights W --out O --sampler chance": "--sampler cannot be 'chance'; it takes uniform, authors, r",
    "extract D --weights none --out O": "none: no such file or folder",
    "extract D --weights imagenet --model resnet14 --out O": '"imagenet" has ResNets of 50, 101, 152 layers, not of 14',
    "extract none --weights W --out O": "none does not exist: give files, a folder, or a list (.txt, .csv)",
    "extract D none --weights W --out O": "none does not exist: give files, a folder, or a list (.txt, .csv)",
    "extract D --weights random --model p3d_resnet --out O": "no model 'p3d_resnet'; did you mean",
    "predict --weights W": "no videos named",
    "predict D --weights W --top 0": "--top must be at least 1, got 0",
    "predict D --weights W --clips 0": "clips must be at least 1, got 0",
    "predict D": "--weights must be given",
    "predict none.mp4 --weights W": "none.mp4 does not exist: give files, a folder, or a list (.txt, .csv)",
    "evaluate": "STORE must be given",
    "evaluate none": "none: not a feature store (no store.json); make one with `p3d extract`",
    "evaluate D": "not a feature store (no store.json); make one with `p3d extract`",
    "evaluate S S": "one word too many: ",
    "evaluate S --out O --layer prob": "no layer 'prob'; this store has pool5",
    "evaluate S --out O --c 0": "--c must be above 0 and --folds at least 2",
    "evaluate S --out O --c nan": "--c must be above 0 and --folds at least 2",
    "evaluate S --out O --folds 1": "--c must be above 0 and --folds at least 2",
    "evaluate S --out O --groups none": "none does not exist",
    "visualize S": "--out must be given",
    "visualize --out O": "give at least one store",
    "visualize none --out O": "none: not a feature store",
    "visualize S --out O --layer prob": "no layer 'prob'; this store has pool5",
    "models --num-classes 0": "num_classes and in_channels must be at least 1",
    "models --num-classes many": "--num-classes takes a whole number or None, got 'many'",
    "models p3d_resnet50": "one word too many: 'p3d_resnet50'",
    "demo --epochs x": "--epochs takes a whole number or None, got 'x'",
}


@pytest.mark.parametrize("words", WRONG_WORDS)
def test_wrong_words(words, two_classes, weights, store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"D": two_classes, "W": weights, "S": store, "O": tmp_path / "out"}
    command, *rest = [places.get(word, word) for word in words.split()]
    small = SMALL if command == "train" else ()
    if command == "train" and rest and not str(rest[0]).startswith("-"):
        small, rest = (), [rest[0], *SMALL, *rest[1:]]
    line = mistake(capsys, command, *small, *rest)
    assert line.startswith(f"p3d {command}: ")
    assert WRONG_WORDS[words] in line
    assert names(tmp_path) == []
    assert len(line) < 300 + len(str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["train", "extract", "predict"])
def test_a_device_that_is_not_there(command, two_classes, weights, tmp_path, capsys):
    args = ("--data", two_classes, *SMALL) if command == "train" else (two_classes, "--weights", weights)
    out = () if command == "predict" else ("--out", tmp_path / "out")
    line = mistake(capsys, command, *args, *out, "--device", "cuda")
    assert line == (f"p3d {command}: device 'cuda' is not available on this machine; use --device auto or cpu")
    assert names(tmp_path) == []


def test_out_is_a_file(two_classes, weights, store, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_text("precious")
    for command in (
        ("train", "--data", two_classes, "--out", out, *SMALL),
        ("extract", two_classes, "--weights", weights, "--out", out, *QUICK),
        ("evaluate", store, "--out", out),
        ("demo", "--out", out),
    ):
        assert mistake(capsys, *command).endswith(f"{out}: is a file; give a folder for --out")
    line = mistake(capsys, "train", "--data", two_classes, "--out", out / "run", *SMALL)
    assert "a file is where a folder is needed: choose another name" in line
    assert "a file is where a folder is needed" in mistake(capsys, "visualize", store, "--out", out / "map")
    assert out.read_text() == "precious"
    assert names(tmp_path) == ["out"]


def test_out_holds_something_else(two_classes, weights, trained, store, tmp_path, capsys):
    train = ("train", "--data", two_classes, *SMALL, "--out")
    extract = ("extract", two_classes, "--weights", weights, *QUICK, "--out")
    line = mistake(capsys, *train, trained)
    assert line == (
        f"p3d train: {trained}: holds a training run already; go on with it by --resume auto, or choose another folder "
        "for --out or remove it"
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("precious")
    for command in (train, extract, ("demo", "--out")):
        assert mistake(capsys, *command, other).endswith("holds other files and no store; give a new folder for --out"
                                                         if command is extract else
                                                         "holds other files; give a new folder for --out")  # fmt: skip
    assert (other / "config.json").read_text() == "precious"
    assert names(other) == ["config.json"]
    assert "holds other files" in mistake(capsys, *train, store)
    line = mistake(capsys, "extract", two_classes, "--weights", weights, "--out", store, *QUICK, "--clips", "3")
    assert f"{store}: this store was made with another clips (2, now 3); give a new folder for --out" in line
