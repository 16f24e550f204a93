"""A model hub, read at one pinned revision.

Layer: `worker.embed`; the only module that imports huggingface_hub. Which files are taken is the caller's choice; of
large files the hub knows a SHA-256, and it is compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from pagemill_core.errors import (
    AccessDeniedError,
    EngineUnavailableError,
    IntegrityError,
    SourceError,
    StoreUnavailableError,
)
from pagemill_worker.ocr.fingerprint import file_digest


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT's, where it was set when the process started."""
    return constants.ENDPOINT


def download(repo: str, revision: str, choose: Callable[[list[str]], list[str]], folder: Path) -> None:
    """Put the chosen files of `repo` at `revision` below `folder`.

    Raises: SourceError (no such model or revision), AccessDeniedError, StoreUnavailableError, IntegrityError.
    """
    if constants.is_offline_mode():
        raise EngineUnavailableError(
            f"hf://{repo} cannot be fetched: HF_HUB_OFFLINE is set", advice="unset it, or fetch with --from a folder"
        )
    try:
        info = HfApi(endpoint=endpoint()).model_info(repo, revision=revision, files_metadata=True)
        siblings = {file.rfilename: file for file in info.siblings or []}
        for name in choose(list(siblings)):
            path = hf_hub_download(repo, name, revision=info.sha or revision, local_dir=folder, endpoint=endpoint())
            lfs = siblings[name].lfs
            if lfs is not None and file_digest(Path(path)) != lfs.sha256:
                raise IntegrityError(f"hf://{repo}: {name} is not the file the hub says it is", advice="fetch it again")
    except GatedRepoError as error:
        raise AccessDeniedError(
            f"hf://{repo} wants its licence accepted", advice="accept it on the hub's page, and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"hf://{repo} does not exist, or is private", advice="check the name, or set HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        raise _http_error(repo, revision, error) from error
    except (HTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StoreUnavailableError(
            f"the hub at {endpoint()} does not answer",
            advice="try again, or name a mirror's folder with --from",
        ) from error
    finally:
        shutil.rmtree(folder / ".cache", ignore_errors=True)


def _http_error(repo: str, revision: str, error: HfHubHTTPError) -> Exception:
    status = error.response.status_code
    if status in (401, 403):
        return AccessDeniedError(f"hf://{repo}: the hub refuses access", advice="set HF_TOKEN to one that may read it")
    if status == 404:
        return SourceError(f"hf://{repo} has no revision {revision}", advice="name a commit of that model")
    return StoreUnavailableError(f"the hub answered {status} for hf://{repo}", advice="try again later")
