"""Pretrained folders from the hub and to it, through huggingface_hub's own code and a hub on this machine."""

import logging
from pathlib import Path

import pytest
import torch
from hub_server import hub_fixture  # noqa: F401
from huggingface_hub import constants
from reference import randomise

from pseudo3d import Pseudo3dError, create_model, from_pretrained, save_pretrained
from pseudo3d.weights.hub import fetch_folder, push_folder, push_to_hub


@pytest.fixture(scope="module")
def model():
    model = randomise(create_model("p3d_resnet14", num_classes=3, blocks="CA")).eval()
    model.class_names = ("left", "right", "none: other")
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_pretrained(model, tmp_path_factory.mktemp("hub") / "saved")


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def same(a, b):
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_from_pretrained_of_the_hub_is_that_of_the_folder(hub, model, folder, tmp_path, monkeypatch):
    others = {"pytorch_model.bin": b"never", "notes.txt": b"never", "runs/model.safetensors": b"never"}
    commit = hub.add("me/nets", {**files_of(folder), **others})
    again = from_pretrained("me/nets")
    assert same(again, model)
    assert again.class_names == model.class_names
    assert again.preprocessing == model.preprocessing
    assert not again.training
    fetched = fetch_folder("me/nets", revision=commit)
    assert files_of(fetched) == files_of(folder)
    assert {request.path.rsplit("/", 1)[1] for request in hub.asked("GET", "/nets/")} == set(files_of(folder))

    hub.requests.clear()
    monkeypatch.chdir(tmp_path)
    assert fetch_folder(f"me/nets@{commit}") == fetched
    assert same(from_pretrained("hf:me/nets", revision=commit), model)
    assert hub.requests == []  # a commit that is here is not asked for, nor is the optional file that it lacks

    hub.add("me/nets", {"config.json": b"{}"})  # the newest commit is not the one that was named
    assert fetch_folder("me/nets", revision=commit) == fetched
    with pytest.raises(Pseudo3dError, match=r"config\.json: format_version None: it was not written by pseudo3d"):
        from_pretrained("me/nets")


def test_weights_of_a_folder_are_checked(hub, folder):
    hub.add("me/nets", files_of(folder))
    weights = fetch_folder("me/nets") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(
        Pseudo3dError, match=r"^me/nets: model\.safetensors is damaged: expected digest [0-9a-f]{64}, got"
    ):
        from_pretrained("me/nets")
    assert from_pretrained("me/nets").class_names


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"README.md": b"x"},
            r"has no config\.json at revision 'main' \(it has README\.md\); is it a folder that save_",
        ),
        ({"pytorch_model.bin": b"x"}, r"has no config\.json"),
        (
            {"config.json": b"{}", "pytorch_model.bin": b"x"},
            r"has no model\.safetensors but pytorch_model\.bin, a pickle, which pseudo3d does not fetch; ask its owner",
        ),
        (
            {"config.json": b"{}", "model-00001-of-00002.safetensors": b"x", "model.safetensors.index.json": b"{}"},
            r"its weights are in several files \(model-00001-of-\.\.\.\); pseudo3d reads one model\.safetensors$",
        ),
        ({"config.json": b"{}"}, r"has no model\.safetensors at revision '[0-9a-f]{40}' \(it has config\.json\)"),
    ],
)
def test_repositories_that_are_no_pretrained_folder(hub, files, message):
    hub.add("me/nets", files)
    with pytest.raises(Pseudo3dError, match=f"^me/nets: .*{message}"):
        from_pretrained("me/nets")


def test_a_local_folder_comes_first(hub, folder, tmp_path, monkeypatch):
    hub.add("me/nets", {"config.json": b"never"})
    monkeypatch.chdir(tmp_path)
    save_pretrained(from_pretrained(folder), "me/nets")
    assert from_pretrained("me/nets").class_names
    assert hub.requests == []
    with pytest.raises(
        Pseudo3dError, match="me/nets is a local folder, which has no revision 'v1'; write hf:me/nets if"
    ):
        from_pretrained("me/nets", revision="v1")
    # "me" is a folder here, so that "me/net" is taken for a misspelt one in it
    with pytest.raises(Pseudo3dError, match=r"me/net: no such folder \(did you mean me/nets\?\); give a folder that"):
        from_pretrained("me/net")
    with pytest.raises(Pseudo3dError, match="other/net: no such folder"):
        from_pretrained(Path("other/net"))  # a Path is a folder and never an id
    assert hub.requests == []
    with pytest.raises(Pseudo3dError, match=r"no such repository.*of that name$"):
        from_pretrained("hf:me/net")
    with pytest.raises(Pseudo3dError, match=r"no such repository.* \(did you mean the local folder me\?\)$"):
        from_pretrained("mee/nets")  # as easily a misspelt folder as an id


def test_revisions_that_contradict_each_other():
    with pytest.raises(Pseudo3dError, match="me/nets@v1 and revision 'v2' contradict each other; give one of them"):
        from_pretrained("me/nets@v1", revision="v2")
    with pytest.raises(Pseudo3dError, match=r"'\.\./x' is not a revision; give a branch, a tag or a commit"):
        from_pretrained("me/nets", revision="../x")


def test_push_and_back(hub, model, folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    (folder / "notes.txt").write_text("stays here")
    try:
        url = push_folder(folder, "me/nets", private=True)
    finally:
        (folder / "notes.txt").unlink()
    repo = hub.repos["me/nets"]
    assert repo.private
    assert url == f"{hub.url}/me/nets/commit/{repo.branches['main']}"
    pushed = repo.commits[repo.branches["main"]]
    assert {name: content for name, content in pushed.items() if name != ".gitattributes"} == files_of(folder)
    assert same(from_pretrained("me/nets"), model)
    assert push_folder(folder, "me/nets") == url  # nothing new, no new commit

    url = push_folder(folder, "me/nets@v2", message="again")
    assert "v2" in repo.branches
    save_pretrained(model, tmp_path / "other", facts={"new": "row"})
    url = push_folder(tmp_path / "other", "me/nets", revision="v2")
    assert url.endswith(repo.branches["v2"])
    assert repo.branches["v2"] != repo.branches["main"]
    assert same(from_pretrained("me/nets@v2"), model)
    assert capfd.readouterr().err == ""  # no terminal, no progress bars


def test_push_a_network(hub, model):
    push_to_hub(model, "me/nets", facts={"video hit@1": "not measured"}, token="hf_write")
    card = hub.repos["me/nets"].commits[hub.repos["me/nets"].branches["main"]]["README.md"].decode()
    assert "# nets\n" in card
    assert "p3d predict VIDEO --weights hf:me/nets" in card
    assert "| video hit@1 | not measured |" in card
    with pytest.raises(Pseudo3dError, match="is not an id of the Hugging Face hub"):
        push_to_hub(model, "nets")


def test_only_whole_folders_are_pushed(hub, model, tmp_path):
    with pytest.raises(Pseudo3dError, match="no such folder"):
        push_folder(tmp_path / "nothing", "me/nets", token="hf_write")
    folder = save_pretrained(model, tmp_path / "half")
    (folder / "README.md").unlink()
    with pytest.raises(Pseudo3dError, match=r"half: has no README\.md, the model card; write the folder with save_pre"):
        push_folder(folder, "me/nets", token="hf_write")
    (folder / "README.md").write_text("---\na: [\n---\n")
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(Pseudo3dError, match="not a whole safetensors file"):
        push_folder(folder, "me/nets", token="hf_write")
    assert hub.requests == []
    assert hub.repos == {}
    save_pretrained(model, folder)
    (folder / "README.md").write_text("---\na: [\n---\n")
    with pytest.raises(Pseudo3dError, match=r"the hub does not take it: Invalid metadata in README\.md\. - not YAML"):
        push_folder(folder, "me/nets", token="hf_write")


def test_who_may_not_push(hub, folder, monkeypatch):
    with pytest.raises(
        Pseudo3dError, match=r"^me/nets: publishing needs a token that may write; set HF_TOKEN or run `hf a"
    ):
        push_folder(folder, "me/nets")
    with pytest.raises(
        Pseudo3dError,
        match=r"your token may not write there \(You don't have the rights.*\); make one with the role 'wri",
    ):
        push_folder(folder, "me/nets", token="hf_read")
    hub.status = 500
    with pytest.raises(Pseudo3dError, match=r"^me/nets: http.* answered 500"):
        push_folder(folder, "me/nets", token="hf_write")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Pseudo3dError, match="nothing can be published while HF_HUB_OFFLINE is set; unset it"):
        push_folder(folder, "me/nets", token="hf_write")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.__exit__()
    with pytest.raises(Pseudo3dError, match=r"^me/nets: no connection to http"):
        push_folder(folder, "me/nets", token="hf_write")


def test_the_log_says_what_is_used(hub, folder, caplog):
    commit = hub.add("me/nets", files_of(folder))
    with caplog.at_level(logging.INFO, "pseudo3d"):
        fetch_folder("me/nets")
    assert f"me/nets: commit {commit}" in caplog.text
