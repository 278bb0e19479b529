"""What may be said of a series: digests of UIDs, which can embed dates, and coded words."""

from __future__ import annotations

import hashlib
import re


def hash_uid(uid: str, salt: str = "") -> str:
    """Return ten hexadecimal digits of a UID's salted SHA-256.

    Example:
        >>> hash_uid("1.2.3", salt="site A")
        '500e5ee497'
    """
    return hashlib.sha256(f"{salt}:{uid}".encode()).hexdigest()[:10]


def code(text: str) -> str:
    """Return a coded string as it is if it looks like a short code (DICOM's CS), else an empty string."""
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else ""
