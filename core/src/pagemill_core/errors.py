"""The error tree of Pagemill, and with it the exit codes and the Job's failure policy.

Layer: the bottom; imports nothing of Pagemill. Every lower error (botocore, OSError, Pillow, an engine) is mapped
to one of these at the border that met it, with `raise … from error`. The tree below is the contract: a test compares
it with the classes and with docs/operations/errors.md.

    PagemillError
    ├─ NonRetriableError                 retrying cannot help
    │  ├─ InvalidSpecError               exit 78  the job's file says something that cannot be done
    │  ├─ AccessDeniedError              exit 77  a right or a credential is missing
    │  ├─ StoreUnsuitableError           exit 76  the store lacks conditional writes, locks or links
    │  ├─ ClusterUnsuitableError         exit 76  the cluster does not know our kinds, or its client is not installed
    │  ├─ OutputInUseError               exit 73  the output belongs to other work or another fingerprint
    │  ├─ IntegrityError                 exit 70  digest, count or plan does not match
    │  ├─ EngineUnavailableError         exit 69  an engine, language or model is not installed
    │  ├─ TooManyFailuresError           exit 3   more items failed than maxFailedItems allows
    │  ├─ BudgetExceededError            exit 4   the job's budget is spent
    │  ├─ DeadlineExceededError          exit 5   the job's deadline has passed
    │  ├─ SourceError                    exit 65  the manifest or listing cannot be planned
    │  └─ ItemError                      never leaves its shard: recorded per item and counted
    │     ├─ ImageMissing                the file named by the item does not exist
    │     ├─ ImageEmpty                  zero bytes
    │     ├─ ImageTruncated              the file ends before its picture does, or its data is damaged
    │     ├─ NotAnImage                  no known picture or page format
    │     ├─ ImageTooLarge               more bytes, pixels or a longer side than allowed
    │     ├─ ImageTooSmall               too few pixels for the engine
    │     ├─ ImageUnsupported            a picture, but of a kind that cannot be decoded (encrypted PDF, odd codec)
    │     ├─ UnsafeId                    the id cannot be a file name below the output
    │     ├─ DuplicateId                 another row of the source has this id and another path
    │     ├─ SourceChanged               the item changed between plan and work
    │     ├─ FetchFailed                 the item could not be read where its URI points
    │     ├─ ForbiddenAddress            the item's URL points to an address that is not allowed
    │     ├─ EngineFailed                the engine raised on this item
    │     ├─ FilteredByStage             a stage of the job's own says that the item goes no further
    │     ├─ EncoderFailed               the encoder gave no usable row: not finite, or without length
    │     ├─ TextTooLong                 the text has more tokens than the model reads
    │     ├─ BookMissing                 the listed book has no folder
    │     ├─ BookEmpty                   the book's folder holds no page
    │     ├─ BookPagesFailed             pages of the book failed, and the job wants whole books
    │     ├─ RowUnusable                 the source's own row holds nothing to encode
    │     ├─ PartUnreadable              a file of the data set cannot be read, so its rows are not known
    │     ├─ ReplyRejected               a remote model's answer cannot be used
    │     ├─ ItemTimeout                 the item took longer than its limit
    │     ├─ ItemKilledWorker            the item was in flight each time its process died
    │     └─ ShardAbandoned              its shard was sealed after all waves
    └─ RetriableError                    the same call may go well later
       ├─ ObjectNotFoundError            exit 75  an object that should be there is not (yet)
       ├─ PreconditionFailedError        exit 75  the object changed since it was read
       ├─ StoreUnavailableError          exit 75  no answer, or an answer that tells nothing: the outcome is unknown
       │  └─ StoreFullError              exit 75  no space is left on the store: waiting alone does not help
       ├─ ThrottledError                 exit 75  the store or an API asks for fewer calls
       ├─ ClusterUnavailableError        exit 75  the cluster's API server does not answer
       ├─ EngineTimeoutError             exit 75  a remote engine did not answer in time
       └─ OutputBusyError                exit 75  another owner works on this output now
"""

from __future__ import annotations

from typing import ClassVar

EXIT_BUG = 1
EXIT_INTERRUPTED = 130
EXIT_DRAINED = 143


class PagemillError(Exception):
    """An error that Pagemill knows by name.

    `exit_code` is the process's exit status when the error ends it, `reason` the CamelCase constant shown in
    conditions and reports, `advice` what the user does next. None of them ever holds a secret.
    """

    exit_code: ClassVar[int] = EXIT_BUG
    advice: str = ""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        if advice:
            self.advice = advice

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def reason(self) -> str:
        return type(self).__name__.removesuffix("Error")


class NonRetriableError(PagemillError):
    """Retrying cannot help."""


class InvalidSpecError(NonRetriableError):
    """The job's file says something that cannot be done; `message` holds the field's path."""

    exit_code = 78


class AccessDeniedError(NonRetriableError):
    """A right or a credential is missing; `advice` says what to grant."""

    exit_code = 77
    advice = "grant the missing right to the identity named in the message, or name other credentials"


class StoreUnsuitableError(NonRetriableError):
    """The store lacks conditional writes, locks or links, so results could be written twice."""

    exit_code = 76


class ClusterUnsuitableError(NonRetriableError):
    """The cluster does not know Pagemill's kinds, or this machine has no client for it; `advice` says what to do."""

    exit_code = 76


class OutputInUseError(NonRetriableError):
    """The output belongs to other work, or to the same work with another fingerprint."""

    exit_code = 73


class IntegrityError(NonRetriableError):
    """A digest, a count or the plan does not match what was recorded."""

    exit_code = 70


class EngineUnavailableError(NonRetriableError):
    """An engine, a language or a model is not installed; `advice` says how to get it."""

    exit_code = 69


class TooManyFailuresError(NonRetriableError):
    """More items failed than `retries.maxFailedItems` allows."""

    exit_code = 3


class BudgetExceededError(NonRetriableError):
    """The job's budget is spent; what is committed stays."""

    exit_code = 4
    advice = "raise spec.budget.maxCost and run the same file again; only what is missing is done"


class DeadlineExceededError(NonRetriableError):
    """The job's deadline has passed; what is committed stays."""

    exit_code = 5
    advice = "raise spec.deadlineSeconds and run the same file again; only what is missing is done"


class SourceError(NonRetriableError):
    """The manifest or the listing cannot be planned; `message` names the first bad line."""

    exit_code = 65


class ItemError(NonRetriableError):
    """One item failed. Never leaves the shard: recorded with its class and message, and counted."""

    exit_code = 70


class ImageMissing(ItemError):
    """The file named by the item does not exist."""


class ImageEmpty(ItemError):
    """The file has zero bytes."""


class ImageTruncated(ItemError):
    """The file ends before its picture does, or its data is damaged."""


class NotAnImage(ItemError):
    """The file is of no known picture or page format."""


class ImageTooLarge(ItemError):
    """More bytes, pixels or a longer side than allowed; refused before decoding."""


class ImageTooSmall(ItemError):
    """Too few pixels for the engine."""


class ImageUnsupported(ItemError):
    """A picture, but of a kind that cannot be decoded here."""


class UnsafeId(ItemError):
    """The id cannot be a file name below the output."""


class DuplicateId(ItemError):
    """Another row of the source has this id and another path."""


class SourceChanged(ItemError):
    """The item changed between plan and work."""


class FetchFailed(ItemError):
    """The item could not be read where its URI points: no answer, no permission, no plain file."""


class ForbiddenAddress(ItemError):
    """The item's URL points to an address that is not allowed."""


class EngineFailed(ItemError):
    """The engine raised on this item; the message ends in a digest of the traceback."""


class FilteredByStage(ItemError):
    """A stage of the job's own says that the item goes no further. Wanted, so not counted against the limit."""


class EncoderFailed(ItemError):
    """The encoder gave no usable row: a value that is not finite, or no length where rows are scaled."""


class TextTooLong(ItemError):
    """The text has more tokens than the model reads, and the job says `onTooLong: fail`."""


class BookMissing(ItemError):
    """The listed book has no folder below the source."""


class BookEmpty(ItemError):
    """The book's folder holds no page."""


class BookPagesFailed(ItemError):
    """Pages of the book failed; the message names every one of them."""


class RowUnusable(ItemError):
    """The source's own row holds nothing to encode: no address, no text, or a status that is not success."""


class PartUnreadable(ItemError):
    """A file of the data set cannot be read, so its rows are not known."""


class ReplyRejected(ItemError):
    """A remote model's answer cannot be used."""


class ItemTimeout(ItemError):
    """The item took longer than its limit, and its process was killed."""


class ItemKilledWorker(ItemError):
    """The item was in flight each time its process died."""


class ShardAbandoned(ItemError):
    """The item's shard was sealed after all waves, before the item was done."""


class RetriableError(PagemillError):
    """The same call may go well later. `retry_after_s` is the other side's own wish, if it named one."""

    exit_code = 75

    def __init__(self, message: str, *, advice: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, advice=advice)
        self.retry_after_s = retry_after_s


class ObjectNotFoundError(RetriableError):
    """An object that should be there is not (yet)."""


class PreconditionFailedError(RetriableError):
    """The object changed since it was read."""


class StoreUnavailableError(RetriableError):
    """No answer, or one that tells nothing: whether a write took effect is unknown."""


class StoreFullError(StoreUnavailableError):
    """No space is left on the store, or a quota is used up. Not waited for: somebody has to make room first."""


class ThrottledError(RetriableError):
    """The store or an API asks for fewer calls."""


class ClusterUnavailableError(RetriableError):
    """The cluster's API server gave no answer, or one that tells nothing."""


class EngineTimeoutError(RetriableError):
    """A remote engine did not answer in time."""


class OutputBusyError(RetriableError):
    """Another owner works on this output now; `message` names it."""
