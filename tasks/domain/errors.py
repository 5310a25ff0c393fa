"""Everything that can go wrong, as a tree.

ReleaseError
├── ConfigurationError          a setting or a recipe is wrong: mend it, then run again
│   └── GpuUnavailableError         a stage that needs a GPU is on a worker that offers none
├── AcquisitionError            the source model could not be trained or downloaded
│   └── DownloadDigestError         what came is not what the recipe pins
├── ExportError                 no converter could express the model in a format
├── VerificationError           an exported file is not what it claims to be
│   ├── DigestMismatchError         its content changed since it was recorded
│   ├── SignatureMismatchError      its inputs or outputs are not the declared ones
│   └── SigningError                its release is not what the holder of the key signed
├── ParityError                 the candidate's answers stray from the reference
├── VariantError                a variant that the recipe requires is not worth releasing
├── IsolationError              a child process did not answer
│   ├── ChildCrashedError           it died of a signal, or left without an answer
│   ├── MemoryLimitError            it took more memory than its limit
│   └── TimeLimitError              it took longer than its limit
├── RemoteError                 a stage that was sent to another machine gave no answer
│   ├── NoWorkerError               no worker of its pool was seen for the stated time
│   └── LostRunError                (transient) its run crashed: worker, process or machine are gone
├── GaveUpError                 the run's process died several times
└── StorageError                the object store refused or lost something
    ├── ArtifactNotFoundError
    ├── AliasConflictError          the alias does not stand where the caller saw it
    ├── NewerSchemaError            a document that only a newer version can read
    ├── ReleaseConflictError        somebody else published under this version
    ├── UnreadableDocumentError     an object is not the document that it should be
    └── StorageUnavailableError     (transient: worth another try)

Each is built from its message alone, because that is all Prefect keeps of an
error that crosses from a worker to its caller. Facts travel in values, such as
``ParityReport``; an error only says them in words.
"""

from __future__ import annotations

from typing import ClassVar, Self


class ReleaseError(Exception):
    """Base of every error this project raises on purpose."""

    transient: ClassVar[bool] = False
    """Whether the same call may succeed later; Prefect retries these and no others."""


class ConfigurationError(ReleaseError):
    """A setting or a recipe is wrong."""


class GpuUnavailableError(ConfigurationError):
    """A stage that needs a GPU runs on a worker that does not offer one."""


class AcquisitionError(ReleaseError):
    """The source model could not be trained or downloaded."""


class DownloadDigestError(AcquisitionError):
    """What was downloaded is not what the recipe pins."""


class ExportError(ReleaseError):
    """No converter could express the model in a format."""


class VerificationError(ReleaseError):
    """An exported file is not what it claims to be."""


class DigestMismatchError(VerificationError):
    """A file's content is not the content that was recorded for it."""

    @classmethod
    def of(cls, key: str, *, expected: str, got: str) -> Self:
        """Word the error for one file and its two digests (SHA-256, hexadecimal)."""
        return cls(
            f"{key}: content changed since it was recorded "
            f"(expected sha256 {expected[:12]}, got {got[:12]}). "
            "Publish under a new version; a published key is never overwritten."
        )


class SignatureMismatchError(VerificationError):
    """An exported model's inputs or outputs differ from the declared ones."""


class SigningError(VerificationError):
    """A release is not what the holder of the key signed."""


class ParityError(ReleaseError):
    """The candidate's outputs stray from the reference beyond the tolerance."""


class VariantError(ReleaseError):
    """A variant that the recipe requires could not be made, strays, or gains nothing."""


class IsolationError(ReleaseError):
    """A child process, in which a framework runs, did not answer."""


class ChildCrashedError(IsolationError):
    """A child process died of a signal, or left without an answer."""


class MemoryLimitError(IsolationError):
    """A child process took more memory than its limit, or the kernel killed it for memory."""


class TimeLimitError(IsolationError):
    """A child process took longer than its limit."""


class RemoteError(ReleaseError):
    """A stage that was sent to another machine gave no answer."""


class NoWorkerError(RemoteError):
    """No worker of the stage's pool was seen for as long as the settings allow."""


class LostRunError(RemoteError):
    """The run of a stage on another machine crashed; the same work may succeed in a new one."""

    transient = True


class GaveUpError(ReleaseError):
    """A run was started several times, and its process died each time."""


class StorageError(ReleaseError):
    """The object store refused or lost something."""


class ArtifactNotFoundError(StorageError):
    """No object has this key."""


class AliasConflictError(StorageError):
    """An alias does not stand where the caller saw it: somebody moved it meanwhile."""


class NewerSchemaError(StorageError):
    """A document was written by a newer version of this program, and is not guessed at."""


class ReleaseConflictError(StorageError):
    """Somebody else published under the same version."""


class UnreadableDocumentError(StorageError):
    """An object is not the document that it should be."""


class StorageUnavailableError(StorageError):
    """The object store could not be reached."""

    transient = True
