"""What huggingface_hub raises, told in one line that says what is wrong and what to do."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pseudo3d.errors import Pseudo3dError, first_few

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_LOG_IN = "set HF_TOKEN or run `hf auth login`"
_AGAIN = "run the same command again"


@contextlib.contextmanager
def in_one_line(
    repo: str, filename: str = "", revision: str = "main", *, loading: bool = False, writing: bool = False
) -> Iterator[None]:
    """Whatever huggingface_hub raises in the block becomes a Pseudo3dError; only calls of it belong there.

    Args:
        repo: "owner/name".
        filename: that was asked for.
        revision: that was asked for.
        loading: the hub has answered before, so that a lost connection is one that broke off.
        writing: something is published.

    Raises:
        Pseudo3dError: instead of what huggingface_hub, its HTTP client and hf_xet raise.
        OSError: the system's own: a full disk, a cache that cannot be written.
    """
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, LocalEntryNotFoundError

    try:
        yield
    except Pseudo3dError:
        raise
    # RuntimeError is all that hf_xet knows, and what hides an upload's error; ValueError is a card that the hub
    # refuses, an answer that is not JSON, or an id that it does not like.
    except (HTTPError, EntryNotFoundError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if isinstance(error, RuntimeError) and (code := re.search(r"os error (\d+)", str(error))):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        cause = error.__cause__ if isinstance(error, (LocalEntryNotFoundError, RuntimeError)) else None
        shown = cause if isinstance(cause, (HTTPError, OSError)) else error
        raise Pseudo3dError(f"{repo}: {_reason(shown, repo, filename, revision, loading, writing)}") from error


def brief(error: BaseException) -> str:
    r"""The first line of what an error says, or its kind when it says nothing.

    Example:
        >>> brief(ValueError("one\ntwo")), brief(TimeoutError())
        ('one', 'TimeoutError')
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def _reason(error: BaseException, repo: str, filename: str, revision: str, loading: bool, writing: bool) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    endpoint = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        if writing:
            return "nothing can be published while HF_HUB_OFFLINE is set; unset it"
        return (
            f"{filename} is not in the cache ({constants.HF_HUB_CACHE}) and HF_HUB_OFFLINE is set; unset it, "
            "or fetch the file once where there is a network"
        )
    if isinstance(error, FileMetadataError):
        return f"{endpoint} does not answer like a hub; check HF_ENDPOINT, the proxy and the firewall"
    if isinstance(error, HfHubHTTPError):
        if writing:
            return _why_not_written(error, endpoint)
        return _why_not_read(error, repo, filename, revision, endpoint)
    if isinstance(error, HTTPError) and not loading:
        return f"no connection to {endpoint} ({brief(error)}); check the network and the proxy and {_AGAIN}"
    if isinstance(error, ValueError) and writing:  # its first line is a headline
        return f"the hub does not take it: {' '.join(str(error).split())}"
    # hf_xet says no more than RuntimeError; plain HTTP from the same hub may do where its storage is out of reach
    xet = ", or with HF_HUB_DISABLE_XET=1" if isinstance(error, RuntimeError) else ""
    what = "the upload" if writing else f"the download of {filename}"
    return f"{what} broke off ({brief(error)}); {_AGAIN}{xet}"


def _why_not_read(error: "HfHubHTTPError", repo: str, filename: str, revision: str, endpoint: str) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"is gated: ask for access at {endpoint}/{repo}, then {_LOG_IN}"
    if isinstance(error, errors.DisabledRepoError):
        return f"was disabled on {endpoint}; nobody can fetch it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}; give a branch, a tag or a commit"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _why_no_file(repo, filename, revision)
    status = error.response.status_code
    if status == 401 and "authorization" in error.response.request.headers:
        return f"{endpoint} refuses your token ({_server_says(error)}); renew it: {_LOG_IN}"
    if status == 401 or isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"no such repository on {endpoint}, or a private one ({_LOG_IN}); nor is there a local folder of that name"
        )
    return _other_status(error, endpoint)


def _why_not_written(error: "HfHubHTTPError", endpoint: str) -> str:
    status = error.response.status_code
    if status == 401 and "authorization" not in error.response.request.headers:
        return f"publishing needs a token that may write; {_LOG_IN}"
    if status in (401, 403):
        return (
            f"your token may not write there ({_server_says(error)}); "
            f"make one with the role 'write' at {endpoint}/settings/tokens, then {_LOG_IN}"
        )
    return _other_status(error, endpoint)


def _other_status(error: "HfHubHTTPError", endpoint: str) -> str:
    status = error.response.status_code
    if status == 429:
        return f"too many requests to {endpoint} ({_server_says(error)}); wait some minutes, or {_LOG_IN}"
    if status >= 500:
        return f"{endpoint} answered {status} ({_server_says(error)}): trouble on its side, try again later"
    return f"{endpoint} refuses: {status} ({_server_says(error)})"


def _server_says(error: "HfHubHTTPError") -> str:
    return " ".join((error.server_message or error.response.reason_phrase or "no reason given").split()).rstrip(".")


def _why_no_file(repo: str, filename: str, revision: str) -> str:
    """What a repository has instead of a file, and what can be done with it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        names = HfApi().list_repo_files(repo, revision=revision)
    except (HTTPError, OSError):  # it was only to say more
        names = []
    if any(re.fullmatch(r"model.*-of-\d+\.safetensors|model\.safetensors\.index\.json", name) for name in names):
        return f"its weights are in several files (model-00001-of-...); pseudo3d reads one {filename}"
    if "pytorch_model.bin" in names and filename.endswith(".safetensors"):
        return (
            f"has no {filename} but pytorch_model.bin, a pickle, which pseudo3d does not fetch; "
            "ask its owner for safetensors"
        )
    there = f" (it has {first_few(names)})" if names else ""
    return f"has no {filename} at revision {revision!r}{there}; is it a folder that save_pretrained wrote?"
