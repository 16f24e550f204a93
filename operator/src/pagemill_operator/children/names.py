"""Names of child Jobs: the same for the same work, so that creating twice is creating once.

Layer: `operator.children`; pure. `<name, at most 28>-<6 hex>-<p | w<n> | f>`: with an index behind it a pod's name
stays within 63 characters.
"""

from __future__ import annotations

import hashlib

from pagemill_core.work.pod import Ending

MAX_STEM_CHARS = 28
_DIGEST_CHARS = 6


def plan_name(name: str, uid: str, run: str) -> str:
    """The plan Job of a run."""
    return f"{_stem(name)}-{_digest(uid, run)}-p"


def wave_name(name: str, uid: str, run: str, wave: int) -> str:
    """The work Job of a wave."""
    return f"{_stem(name)}-{_digest(uid, run)}-w{wave}"


def finalize_name(name: str, uid: str, run: str, ending: tuple[int, Ending]) -> str:
    """The finalize Job of one ownership (`epoch`) of a run; a run that was stopped and resumed has several."""
    epoch, kind = ending
    return f"{_stem(name)}-{_digest(uid, run, str(epoch), kind)}-f"


def _stem(name: str) -> str:
    # A pod's host name is one DNS label, a job's name may hold dots.
    return name[:MAX_STEM_CHARS].replace(".", "-").strip("-")


def _digest(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:_DIGEST_CHARS]
