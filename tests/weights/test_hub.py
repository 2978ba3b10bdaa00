"""Files of the hub: everything goes through huggingface_hub's own code to a hub on this machine (hub_server.py)."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer, hub_fixture  # noqa: F401
from huggingface_hub import constants

from pseudo3d import Pseudo3dError
from pseudo3d.weights.hub import (
    IMAGENET,
    HubFile,
    download,
    is_hub_id,
    parse_hub_id,
)

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FLIPPED = hashlib.sha256(bytes([1]) + CONTENT[1:]).hexdigest()  # what the server's ``corrupt`` makes of it


def weights_in(hub, **flags):
    """A repository with one file, and that file pinned to its commit and digest."""
    commit = hub.add("me/nets", {"model.safetensors": CONTENT}, **flags)
    return HubFile("me/nets", "model.safetensors", commit, SHA256, len(CONTENT))


def cached_files():
    """Regular files and links of the repositories in the cache, but locks and notes of huggingface_hub's own."""
    cache = Path(constants.HF_HUB_CACHE)
    return [p for p in cache.rglob("*") if not p.is_dir() and {"blobs", "snapshots"} & set(p.relative_to(cache).parts)]


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("me/nets", "me/nets", None),
        ("hf:me/nets", "me/nets", None),
        ("timm/resnet50.tv_in1k@main", "timm/resnet50.tv_in1k", "main"),
        ("me/nets@refs/pr/1", "me/nets", "refs/pr/1"),
        ("hf:me/nets.pth@v1.0", "me/nets.pth", "v1.0"),
        ("_a/b_", "_a/b_", None),
    ],
)
def test_ids(text, repo, revision):
    assert is_hub_id(text)
    assert parse_hub_id(text) == (repo, revision)


@pytest.mark.parametrize(
    "text",
    ["nets", "a/b/c", "/a/b", "./a/b", "../a", "~/nets", "me/nets@", "me/nets@a b", "me/nets@a/../b", "me/a--b",
     "me/a..b", "me/nets.git", "me/-nets", "me/nets.", "me/ne ts", "me/", "", "hf:", "hf:nets", "mé/nets",
     "me/model.safetensors", "runs/best.PTH", "https://huggingface.co/me/nets", "me\\nets", "m" * 97 + "/nets"],
)  # fmt: skip
def test_what_is_no_id(text):
    assert not is_hub_id(text)
    with pytest.raises(Pseudo3dError, match="is not an id of the Hugging Face hub; write owner/name or owner/name@rev"):
        parse_hub_id(text)


def test_imagenet_is_pinned_where_that_could_be_looked_up():
    assert sorted(IMAGENET) == [50, 101, 152]
    assert len(IMAGENET[50].revision) == 40
    assert len(IMAGENET[50].sha256) == 64
    for depth, file in IMAGENET.items():
        assert file.repo == f"timm/resnet{depth}.tv_in1k"
        assert file.filename == "model.safetensors"


def test_a_pinned_file_is_fetched_once(hub):
    file = weights_in(hub)
    hub.add("me/nets", {"model.safetensors": b"a later version"})
    path = download(file)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(constants.HF_HUB_CACHE)
    asked = hub.asked(word="model.safetensors")
    assert {request.method for request in asked} == {"HEAD", "GET"}
    assert all(f"/{file.revision}/" in request.path for request in asked)  # the revision that was pinned, no other
    hub.requests.clear()
    assert download(file) == path
    assert hub.requests == []


def test_a_connection_that_is_cut_is_resumed(hub):
    content = os.urandom(12_000_000)
    hub.cut_after = 11_000_000
    commit = hub.add("me/nets", {"model.safetensors": content})
    path = download(HubFile("me/nets", "model.safetensors", commit, hashlib.sha256(content).hexdigest()))
    assert path.read_bytes() == content
    assert [request.range for request in hub.asked("GET", "storage")] == [None, "bytes=10485760-"]


def test_a_connection_that_is_always_cut(hub):
    hub.cut_after, hub.cuts = 0, math.inf
    file = weights_in(hub)
    with pytest.raises(
        Pseudo3dError,
        match=r"^me/nets: the download of model.safetensors broke off \(.*\); run the same command again$",
    ):
        download(file)
    assert cached_files() == []
    hub.cuts = 0
    assert download(file).read_bytes() == CONTENT


def test_a_file_that_is_shorter_than_announced(hub, monkeypatch):
    file = weights_in(hub)
    monkeypatch.setattr(hub.repos["me/nets"], "commits", {file.revision: {"model.safetensors": CONTENT}})
    real = len(CONTENT)

    class Longer(bytes):
        def __len__(self):
            return real + 1

    hub.repos["me/nets"].commits[file.revision]["model.safetensors"] = Longer(CONTENT)
    with pytest.raises(Pseudo3dError, match=r"the download of model\.safetensors broke off \(.*size 10241"):
        download(file)


def test_xet_storage_that_is_out_of_reach(hub, monkeypatch):
    """hf_xet itself answers here; it knows RuntimeError and no more."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    file = weights_in(hub)
    hub.xet = True
    with pytest.raises(
        Pseudo3dError, match=r"model\.safetensors broke off \(.*404.*\); run the same .*HF_HUB_DISABLE_XET=1$"
    ):
        download(file)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert download(file).read_bytes() == CONTENT


@pytest.mark.parametrize("pinned", [True, False])
def test_a_wrong_digest(hub, pinned):
    file = weights_in(hub)
    file = file if pinned else HubFile(file.repo, file.filename, "main")
    hub.corrupt = True
    with pytest.raises(
        Pseudo3dError,
        match=f"^me/nets: model.safetensors is damaged: expected digest {SHA256}, got {FLIPPED}; it was removed from "
        "the cache, run the same command again to fetch it anew$",
    ):
        download(file)
    assert cached_files() == []
    hub.corrupt = False
    assert download(file).read_bytes() == CONTENT


def test_a_file_that_was_damaged_in_the_cache(hub):
    file = weights_in(hub)
    download(file).write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(Pseudo3dError, match="is damaged"):
        download(file)
    assert cached_files() == []
    assert download(file).read_bytes() == CONTENT


def test_another_file_than_the_pinned_one_is_not_used(hub):
    file = weights_in(hub)
    with pytest.raises(
        Pseudo3dError,
        match=f"on the hub is not the file that pseudo3d knows: expected SHA-256 {'0' * 64}, got {SHA256}",
    ):
        download(HubFile(file.repo, file.filename, file.revision, "0" * 64))
    assert cached_files() == []


def test_a_file_outside_lfs_is_checked_by_gits_digest(hub):
    commit = hub.add("me/nets", {"weights.dat": CONTENT})
    file = HubFile("me/nets", "weights.dat", commit)
    assert download(file).read_bytes() == CONTENT
    download(file).write_bytes(CONTENT[1:])
    with pytest.raises(
        Pseudo3dError, match=r"weights\.dat is damaged: expected digest [0-9a-f]{40}, got [0-9a-f]{40};"
    ):
        download(file)


def test_a_cache_without_links_is_checked_when_it_is_filled(hub, monkeypatch, caplog):
    """As on Windows without developer mode: the snapshot holds the file itself."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    hub.corrupt = True
    file = HubFile("me/nets", "model.safetensors", weights_in(hub).revision)
    with pytest.raises(Pseudo3dError, match=f"is damaged: expected digest {SHA256}"):
        download(file)
    hub.corrupt = False
    path = download(file)
    assert not path.is_symlink()
    assert not caplog.records
    assert download(file) == path
    assert "me/nets: model.safetensors is not checked, the hub announces no digest" in caplog.text


def test_every_link_to_a_damaged_file_goes_and_nothing_outside_the_cache(hub, tmp_path):
    """huggingface_hub keeps files from Xet storage in one place for all repositories, with links to it."""
    file = weights_in(hub)
    for shared in (Path(constants.HF_HUB_CACHE) / "blobs" / "ab" / "abab", tmp_path / "elsewhere"):
        path = download(file)
        blob = path.resolve()
        shared.parent.mkdir(parents=True, exist_ok=True)
        shared.write_bytes(b"damaged")
        blob.unlink()
        blob.symlink_to(shared)
        with pytest.raises(Pseudo3dError, match="is damaged"):
            download(file)
        assert cached_files() == []
        assert download(file).read_bytes() == CONTENT
    assert shared.read_bytes() == b"damaged"


def test_a_branch_is_named_with_its_commit(hub, caplog):
    first = weights_in(hub).revision
    file = HubFile("me/nets", "model.safetensors", "main")
    assert download(file).read_bytes() == CONTENT
    assert f"me/nets: revision 'main' is not pinned, this is commit {first}" in caplog.text
    second = hub.add("me/nets", {"model.safetensors": b"new"})
    assert download(file).read_bytes() == b"new"
    assert second in caplog.text
    caplog.clear()
    download(HubFile("me/nets", "model.safetensors", second))
    assert caplog.records == []


def test_a_branch_without_the_hub_is_what_the_cache_has(hub, monkeypatch, caplog):
    commit = weights_in(hub).revision
    file = HubFile("me/nets", "model.safetensors", "main")
    path = download(file)
    hub.status = 503
    hub.requests.clear()
    assert download(file) == path
    assert len(hub.requests) == 1  # with a copy at hand nobody waits for a hub in trouble
    assert f"me/nets: using the cache, commit {commit} (" in caplog.text
    hub.status = None
    hub.__exit__()
    assert download(file) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    caplog.clear()
    assert download(file) == path
    assert not [record for record in caplog.records if "using the cache" in record.message]  # as it was asked for


def test_offline(hub, monkeypatch):
    file = weights_in(hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        Pseudo3dError,
        match=r"^me/nets: model.safetensors is not in the cache \(.*hub\) and HF_HUB_OFFLINE is set; unset it, or",
    ):
        download(file)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    path = download(file)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(file) == path
    assert hub.requests == []


def test_no_network(hub):
    file = weights_in(hub)
    hub.__exit__()
    with pytest.raises(
        Pseudo3dError,
        match=r"^me/nets: no connection to http://127.0.0.1:\d+ \(.*refused\); check the network and the proxy and",
    ):
        download(file)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, r"answered 500 \(switched to fail\): trouble on its side, try again later$"),
        (503, r"answered 503 \("),
        (429, r"too many requests to http.*; wait some minutes, or set HF_TOKEN or run `hf auth login`$"),
        (403, r"refuses: 403 \(switched to fail\)$"),
        (418, r"refuses: 418 \(switched to fail\)$"),
    ],
)
def test_an_unwilling_hub(hub, status, message, capfd):
    file = weights_in(hub)
    hub.status = status
    with pytest.raises(Pseudo3dError, match=message) as caught:
        download(file)
    assert len(str(caught.value).splitlines()) == 1
    # A hub in trouble is asked again, one that refuses is not; where no terminal is, nobody reads of it.
    assert (len(hub.asked("HEAD")) > 2) == (status in (429, 500, 503))
    assert capfd.readouterr() == ("", "")


def test_what_does_not_answer_like_a_hub(hub):
    file = weights_in(hub)
    hub.foreign = True
    with pytest.raises(
        Pseudo3dError, match="does not answer like a hub; check HF_ENDPOINT, the proxy and the firewall"
    ):
        download(file)


def test_private_gated_and_missing_repositories(hub, monkeypatch):
    def refused(repo, words, **others):
        with pytest.raises(Pseudo3dError, match=words) as caught:
            download(HubFile(**{"repo": repo, "filename": "model.safetensors", "revision": "main"} | others))
        assert len(str(caught.value).splitlines()) == 1
        assert type(caught.value) is Pseudo3dError

    weights_in(hub)
    hub.add("me/secret", {"model.safetensors": CONTENT}, private=True)
    hub.add("me/gated", {"model.safetensors": CONTENT}, gated=True)
    nothing = (
        r"^me/{}: no such repository on http.*, or a private one \(set HF_TOKEN or run `hf auth login`\); "
        r"nor is there a local folder of that name$"
    )
    gated = "^me/gated: is gated: ask for access at http.*/me/gated, then set HF_TOKEN or run `hf auth login`$"
    refused("me/nothing", nothing.format("nothing"))
    refused("me/secret", nothing.format("secret"))
    refused("me/gated", gated)
    refused("me/nets", "^me/nets: has no revision 'v9'; give a branch, a tag or a commit$", revision="v9")
    refused("me/nets", r"^me/nets: has no a\.bin at revision 'main' \(it has model\.safetensors\)", filename="a.bin")
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    refused("me/nets", r"refuses your token \(Invalid credentials in Authorization header\); renew it: set HF_TOKEN or")
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    refused("me/nothing", nothing.format("nothing"))
    refused("me/gated", gated)
    assert download(HubFile("me/secret", "model.safetensors", "main")).read_bytes() == CONTENT
    assert {request.token for request in hub.asked(word="/storage/")} == {None}  # tokens stay with the hub


def test_a_full_disk_is_an_oserror(hub, monkeypatch):
    file = weights_in(hub)
    for error, code in ((OSError(28, "No space left on device"), 28), (RuntimeError("no space (os error 28)"), 28)):

        def full(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("huggingface_hub.hf_hub_download", full)
            with pytest.raises(OSError, match="No space left") as caught:
                download(file)
        assert caught.value.errno == code


def run(code, env, stderr=subprocess.PIPE):
    """Python in a process of its own, which reads the variables as a user's would."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    script = f"from pseudo3d.weights.hub import *\nfile = HubFile('me/nets', 'model.safetensors', 'main')\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script], env=kept | env, text=True, stdout=subprocess.PIPE, stderr=stderr
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_variables_of_huggingface_hub(tmp_path):
    import pty
    import termios

    with HubServer() as hub:
        hub.add("me/nets", {"model.safetensors": CONTENT}, private=True)
        home = tmp_path / "home"
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_read",
               "HF_HUB_ETAG_TIMEOUT": "1"}  # fmt: skip
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        hub.slow = "other"
        code = """
import sys
assert "huggingface_hub" not in sys.modules, "imported too early"
print(download(file))
try:
    download(HubFile("me/nets", "other.safetensors", "main"))
except ValueError as error:
    print(error)
"""
        path, error = run(code, env, stderr=theirs).splitlines()
        os.close(theirs)
        shown = os.read(ours, 10_000).decode()
        os.close(ours)
        assert "model.safetensors: 100%" in shown  # on a terminal there is a progress bar
        path = Path(path)
        assert path.is_relative_to(home)
        assert path.read_bytes() == CONTENT
        assert "me/nets: no connection to http" in error  # HF_HUB_ETAG_TIMEOUT has passed, once
        assert len(hub.asked("HEAD", "other")) == 1
        assert {request.token for request in hub.asked("HEAD")} == {"hf_read"}

        hub.requests.clear()
        path_again, error = run(code, {**env, "HF_HUB_OFFLINE": "1"}).splitlines()
        assert Path(path_again) == path
        assert "me/nets: other.safetensors is not in the cache" in error
        assert hub.requests == []
