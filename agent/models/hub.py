"""Downloads from the Hugging Face Hub."""

import io
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from agent.errors import DiskFullError, ModelFetchError, ModelNotFoundError
from agent.models import embedded
from agent.models.catalog import ModelEntry
from agent.models.progress import Progress, first_line

# What the Hub's client raises when a download breaks off. Its HTTP library changes its name between
# releases (httpx, httpx2), so the base class is taken from the client's own error.
_DOWNLOAD_ERRORS: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError, RuntimeError)
_HUB_TIMEOUT_SECONDS = 5.0
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def download_snapshot(entry: ModelEntry, revision: str | None, progress: Progress) -> Path:
    """Downloads a model into the Hugging Face cache and returns its folder there.

    Raises:
        ModelNotFoundError: The Hub has no such model, or cannot be reached.
        ModelFetchError: The download failed, or the model's terms were not accepted.
        DiskFullError: There is no room for it.
    """
    hub_id = entry.location
    progress("download", 0, None)
    try:
        # The download itself waits without end for a Hub that accepts and never answers.
        HfApi().model_info(hub_id, revision=revision, timeout=_HUB_TIMEOUT_SECONDS)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelNotFoundError(
            f"The Hub has no model {hub_id}"
            + (f" at revision {revision!r}" if revision else "")
            + ", or it is private: check the name, or set HF_TOKEN."
        ) from error
    except _DOWNLOAD_ERRORS as error:
        raise _out_of_reach(entry) from error

    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=_HUB_FILES,
            ignore_patterns=["*/*"],  # conversions for other frameworks live in subfolders
            tqdm_class=_reporting_tqdm(progress),
        )
    except GatedRepoError as error:
        raise ModelFetchError(
            f"{hub_id} is gated: accept its terms on its Hub page, then set HF_TOKEN."
        ) from error
    except LocalEntryNotFoundError as error:
        raise _out_of_reach(entry) from error
    except _DOWNLOAD_ERRORS as error:
        if "No space left" in str(error):
            raise DiskFullError(
                f"No room for {hub_id} in the Hugging Face cache: free some, or set HF_HOME to a"
                " folder on a larger disk. What was fetched so far is resumed from there."
            ) from error
        raise ModelFetchError(
            f"Fetching {hub_id} failed: {first_line(error)}. Try again: what was fetched so far"
            " is kept."
        ) from error
    return Path(folder)


def _out_of_reach(entry: ModelEntry) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{entry.name} is not on this machine, and the Hugging Face Hub, where it is"
        f" {entry.location}, cannot be reached. Connect once to fetch it, give the path of a local"
        f" folder, or use --model {embedded.SMOLLM2.name} (embedded: needs only a Python package"
        " index) or --model tiny (needs nothing)."
    )


def _reporting_tqdm(progress: Progress) -> type[tqdm]:
    """A tqdm that draws nothing and reports bytes, for the Hub's client."""
    # The client counts received and written bytes in two bars: report the one that is ahead.
    furthest = [0.0, 0.0]

    class ReportingTqdm(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> Any:
            drawn = super().update(n)
            if self.unit == "B":
                furthest[0] = max(furthest[0], self.n)
                furthest[1] = max(furthest[1], self.total or 0)
                progress("download", furthest[0], furthest[1] or None)
            return drawn

    return ReportingTqdm
