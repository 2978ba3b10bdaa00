"""The Hugging Face hub: files and pretrained folders that are fetched once and checked, and folders that are published.

huggingface_hub does the work, so its cache and its variables hold: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE. It
takes a third of a second to import and is imported where it is called. What it raises becomes one line here.
"""

import contextlib
import hashlib
import logging
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pseudo3d.errors import Pseudo3dError
from pseudo3d.files import sha256_of
from pseudo3d.models import VideoModel
from pseudo3d.weights.card import CardInfo
from pseudo3d.weights.hub_errors import brief, in_one_line
from pseudo3d.weights.pretrained import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, from_pretrained, save_pretrained

logger = logging.getLogger("pseudo3d")

PREFIX = "hf:"  # an id for sure, even where a local folder has its name
_EXTRAS = (CARD_NAME, "preprocessor_config.json")  # of a pretrained folder, fetched when they are there
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?!.*(--|\.\.|\.git$)){_PART}/{_PART}")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt", ".caffemodel", ".json")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository.

    Args:
        repo: "owner/name".
        filename: within the repository.
        revision: a commit (then nothing can change), a branch or a tag.
        sha256: what the file must be; None for the digest that the hub announces.
        size: in bytes, when known.
    """

    repo: str
    filename: str
    revision: str
    sha256: str | None = None
    size: int | None = None


# ImageNet's 2-D ResNets by depth, torchvision's v1 weights as timm publishes them. The commits and digests of 101 and
# 152 could not be looked up when this was written: "main" may move, so what is checked there is the digest that the
# hub announces, and the commit is logged.
IMAGENET: dict[int, HubFile] = {
    50: HubFile(
        "timm/resnet50.tv_in1k",
        WEIGHTS_NAME,
        "78f3ecfdb38e06d9b8397f662e7ab8fee96026fa",
        "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
        102469840,
    ),
    101: HubFile("timm/resnet101.tv_in1k", WEIGHTS_NAME, "main"),
    152: HubFile("timm/resnet152.tv_in1k", WEIGHTS_NAME, "main"),
}


def parse_hub_id(text: str) -> tuple[str, str | None]:
    """The repository and the revision of "owner/name" or "owner/name@revision", with or without "hf:" before it.

    Without "hf:", a name that ends like a weights file is a path and no id.

    Raises:
        Pseudo3dError: it is no id.

    Example:
        >>> parse_hub_id("timm/resnet50.tv_in1k"), parse_hub_id("hf:me/fights@v1")
        (('timm/resnet50.tv_in1k', None), ('me/fights', 'v1'))
    """
    repo, at, revision = text.removeprefix(PREFIX).partition("@")
    is_file = repo.lower().endswith(_FILE_SUFFIXES) and not text.startswith(PREFIX)
    if is_file or not _REPO.fullmatch(repo) or (at and not _REVISION.fullmatch(revision)):
        raise Pseudo3dError(
            f"{text!r} is not an id of the Hugging Face hub; write owner/name or owner/name@revision, "
            "with letters, digits, '-', '_' and '.'"
        )
    return repo, revision or None


def is_hub_id(text: str) -> bool:
    """Whether ``parse_hub_id`` takes it; says nothing about whether there is such a repository.

    Example:
        >>> is_hub_id("me/fights"), is_hub_id("me/fights.pth"), is_hub_id("runs/first/best"), is_hub_id("hf:me/fights")
        (True, False, False, True)
    """
    try:
        parse_hub_id(text)
    except Pseudo3dError:
        return False
    return True


def download(file: HubFile) -> Path:
    """A file of the hub, from the cache when it is there, checked against its SHA-256.

    Args:
        file: what to fetch. A branch or tag is asked for anew each time, unless the hub cannot be reached; that it is
            not pinned, and the commit it stood for, is logged as a warning.

    Returns:
        Its path in the cache of huggingface_hub; not to be written to.

    Raises:
        Pseudo3dError: no network, offline and not in the cache, no such repository, revision or file, no access, a
            connection that breaks off, another digest (the file is then removed from the cache).
        OSError: the cache cannot be written or the disk is full.

    Example:
        >>> path = download(IMAGENET[50])  # doctest: +SKIP
    """
    path, announced = _fetch(file)
    if not _COMMIT.fullmatch(file.revision):
        logger.warning("%s: revision %r is not pinned, this is commit %s", file.repo, file.revision, path.parent.name)
    _check(file, path, announced)
    return path


def fetch_folder(repo: str, *, revision: str | None = None) -> Path:
    """The pretrained folder in a repository: config.json, model.safetensors and, if there, the model card.

    Args:
        repo: "owner/name", or with "@revision".
        revision: a branch, tag or commit; None for "main".

    Returns:
        The folder in the cache of huggingface_hub, all files from one commit; not to be written to.

    Raises:
        Pseudo3dError: as ``download``; also for a repository without model.safetensors.
        OSError: the cache cannot be written or the disk is full.

    Example:
        >>> folder = fetch_folder("me/fights")  # doctest: +SKIP
    """
    repo, revision = _with_revision(repo, revision)
    path, _ = _fetch(HubFile(repo, CONFIG_NAME, revision or "main"))
    commit = path.parent.name
    logger.info("%s: commit %s", repo, commit)
    for name in _EXTRAS:  # before the large file: when that is here, nothing is left to ask for
        _fetch_if_there(HubFile(repo, name, commit))
    weights = HubFile(repo, WEIGHTS_NAME, commit)
    _check(weights, *_fetch(weights))
    return path.parent


def push_folder(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Publish a pretrained folder: config.json, model.safetensors and README.md, nothing else that lies there.

    Args:
        folder: that ``save_pretrained`` or ``p3d train`` wrote; it is loaded first, so that only a whole one is sent.
        repo: "owner/name"; made if missing.
        private: of a repository that is made.
        revision: the branch, made if missing; None for "main".
        message: of the commit.
        token: None for HF_TOKEN or that of `hf auth login`.

    Returns:
        The address of the commit.

    Raises:
        Pseudo3dError: the folder is not whole, no token or one that may not write, no network.

    Example:
        >>> push_folder("runs/first/checkpoints/best", "me/fights")  # doctest: +SKIP
    """
    folder = Path(folder)
    name = from_pretrained(folder).architecture.name
    if not (folder / CARD_NAME).is_file():
        raise Pseudo3dError(f"{folder}: has no {CARD_NAME}, the model card; write the folder with save_pretrained")
    repo, revision = _with_revision(repo, revision)
    with in_one_line(repo, writing=True), _quiet_unless_terminal():
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, CARD_NAME],
            revision=revision,
            commit_message=message or f"{name}, written by pseudo3d",
        )
    return str(commit.commit_url)


def push_to_hub(
    model: VideoModel,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    facts: dict[str, str] | None = None,
    card: CardInfo | None = None,
    token: str | None = None,
) -> str:
    """Publish a network as ``save_pretrained`` writes it; the model card names the repository.

    Args:
        model: the network.
        repo: as for ``push_folder``.
        private: as for ``push_folder``.
        revision: as for ``push_folder``.
        message: as for ``push_folder``.
        facts: as for ``save_pretrained``.
        card: as for ``save_pretrained``.
        token: as for ``push_folder``.

    Returns:
        The address of the commit.

    Raises:
        Pseudo3dError: as ``push_folder``.

    Example:
        >>> push_to_hub(model, "me/fights", private=True)  # doctest: +SKIP
    """
    repo, revision = _with_revision(repo, revision)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder, facts=facts, card=card, source=PREFIX + repo)
        return push_folder(folder, repo, private=private, revision=revision, message=message, token=token)


def _with_revision(repo: str, revision: str | None) -> tuple[str, str | None]:
    name, in_id = parse_hub_id(repo)
    if in_id is not None and revision not in (None, in_id):
        raise Pseudo3dError(f"{repo} and revision {revision!r} contradict each other; give one of them")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise Pseudo3dError(f"{revision!r} is not a revision; give a branch, a tag or a commit")
    return name, revision or in_id


def _fetch(file: HubFile) -> tuple[Path, str | None]:
    """The path in the cache, and the digest that the hub announces for it (None when that is not known)."""
    with in_one_line(file.repo, file.filename, file.revision), _quiet_unless_terminal():
        from huggingface_hub import constants, errors, hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(file.repo, file.filename, revision=file.revision)
        known = Path(cached) if isinstance(cached, str) else None
        if known is not None and _COMMIT.fullmatch(file.revision):
            return known, _announced(known)
        try:
            etag = _ask(file, patiently=known is None)
        except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError):
            raise
        except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            if known is None:
                raise
            level = logging.INFO if constants.is_offline_mode() else logging.WARNING
            logger.log(level, "%s: using the cache, commit %s (%s)", file.repo, known.parent.name, brief(error))
            return known, _announced(known)
    with in_one_line(file.repo, file.filename, file.revision, loading=True), _quiet_unless_terminal():
        path = Path(hf_hub_download(file.repo, file.filename, revision=file.revision))
    return path, _announced(path) or etag


def _ask(file: HubFile, *, patiently: bool) -> str | None:
    """Ask the hub about a file: its ETag.

    hf_hub_download does so too, but repeats a question that nobody answers for minutes. Here no network is known at
    once, and only a server that answers with an error is asked again.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    url = hf_hub_url(file.repo, file.filename, revision=file.revision)
    try:
        return get_hf_file_metadata(url).etag
    except HfHubHTTPError as error:
        if not patiently or (error.response.status_code < 500 and error.response.status_code != 429):
            raise
    return get_hf_file_metadata(url, retry_on_errors=True).etag


def _fetch_if_there(file: HubFile) -> None:
    """Fetch a file that a repository may lack; that it does is remembered in the cache."""
    with in_one_line(file.repo, file.filename, file.revision, loading=True), _quiet_unless_terminal():
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError

        if try_to_load_from_cache(file.repo, file.filename, revision=file.revision) is None:  # else here, or not there
            with contextlib.suppress(EntryNotFoundError):
                hf_hub_download(file.repo, file.filename, revision=file.revision)


def _announced(path: Path) -> str | None:
    """The digest by which the cache calls a file: a snapshot's file is a link to blobs/DIGEST, where links exist."""
    return path.readlink().name if path.is_symlink() else None


def _check(file: HubFile, path: Path, announced: str | None) -> None:
    """Compare a file with its SHA-256, or with what the hub announces: that, or git's SHA-1 outside git LFS."""
    expected = file.sha256 or announced or ""
    if len(expected) not in (40, 64):
        logger.warning("%s: %s is not checked, the hub announces no digest", file.repo, file.filename)
        return
    got = _digest(path, sha1=len(expected) == 40)
    if got == expected:
        return
    _remove_from_cache(path)
    where = f"{file.repo}: {file.filename}"
    if got == announced:
        raise Pseudo3dError(
            f"{where} on the hub is not the file that pseudo3d knows: expected SHA-256 {expected}, got {got}; "
            "it was removed from the cache. Do not use it before you know why"
        )
    raise Pseudo3dError(
        f"{where} is damaged: expected digest {expected}, got {got}; it was removed from the cache, "
        "run the same command again to fetch it anew"
    )


def _digest(path: Path, *, sha1: bool) -> str:
    if not sha1:
        return sha256_of(path)
    header = f"blob {path.stat().st_size}\0".encode()  # git's
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()


def _remove_from_cache(path: Path) -> None:
    """Remove a file and every link on the way to it (snapshot, blob, shared blob), but nothing outside the cache."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    while (path.parent.resolve() / path.name).is_relative_to(cache):
        target = path.parent / path.readlink() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            return
        path = target


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Progress bars and notes of retries go to a terminal only; elsewhere an error is all that is said."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    level = hub_logging.get_verbosity()
    with contextlib.ExitStack() as stack:
        if sys.stderr is None or not sys.stderr.isatty():
            if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # else somebody has decided
                stack.enter_context(disable_progress_bars())
            if level == logging.WARNING:
                hub_logging.set_verbosity_error()
                stack.callback(hub_logging.set_verbosity, level)
        yield
