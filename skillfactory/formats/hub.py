"""The Hugging Face hub: sending an exported data set there, and what its errors mean to a user."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skillfactory.errors import SkillFactoryError, StoreError

_UNREACHABLE = {"ConnectionError", "TransportError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}
_TOKEN = "run `hf auth login`, or set HF_TOKEN"


def push(folder: Path, repo_id: str, private: bool = True) -> str:
    """Send a folder that `export` wrote in the format `datasets` to the hub; gives its address there.

    The repository is made where it is missing, and `private` is only for a new one. Raises StoreError in one sentence
    where the folder is none of ours or the hub does not take it.
    """
    import huggingface_hub

    folder = Path(folder).expanduser()
    data = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/train-*.parquet"))
    if not data or not (folder / "README.md").is_file():
        raise StoreError(f"{folder} is no exported data set; write one with the format `datasets`.")
    if not huggingface_hub.get_token():
        raise StoreError(f"Sending {repo_id} to the Hugging Face hub needs a token; {_TOKEN}.")
    api = huggingface_hub.HfApi()
    with told(f"{repo_id} cannot be sent to the Hugging Face hub", StoreError):
        # The name that the hub gives it: one without an owner becomes the user's.
        name = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=["README.md", *data],
            commit_message="SkillFactory traces",
        )
    return f"{api.endpoint}/datasets/{name}"


@contextmanager
def told(what: str, kind: type[SkillFactoryError]) -> Iterator[None]:
    """Turn what the hub's libraries raise into one sentence that starts with `what`; our own errors pass."""
    try:
        yield
    except SkillFactoryError:
        raise
    except Exception as error:
        raise kind(f"{what}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < 10:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {each.__name__ for cause in causes for each in type(cause).__mro__}
    answers = [getattr(each, "response", None) for each in causes]
    status = next((answer.status_code for answer in answers if answer is not None), 0)
    if "HFValidationError" in kinds:
        return "that is no name for a repository; give OWNER/NAME"
    if "GatedRepoError" in kinds or "is a gated dataset" in str(error):
        return f"it is open only to those who accepted its terms; accept them on its page, then {_TOKEN}"
    if "RevisionNotFoundError" in kinds:
        return "it has no such revision; leave the revision out or mend it"
    if status == 401 or "RepositoryNotFoundError" in kinds or "DatasetNotFoundError" in kinds:
        return f"the hub has no such data set, or not for you; mend its name, or {_TOKEN}"
    if status == 403:
        return "the token may not do that; give one with write access to the owner's repositories"
    if kinds & _UNREACHABLE:
        return "the hub cannot be reached; try again where there is a network"
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__
