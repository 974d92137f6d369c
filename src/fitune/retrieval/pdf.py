"""PDF → plain text.

Knows pypdf; knows nothing of passages.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fitune.errors import DataError, MissingExtraError


def pdf_text(path: Path) -> tuple[str, str]:
    """The text of all pages, parted by blank lines, and the title that the file gives itself.

    Pages that are pictures, as scanned ones are, have no text.

    Raises:
        DataError: not a PDF file, damaged, or locked by a password.
        MissingExtraError: `pypdf` is not installed.
    """
    try:
        import pypdf
    except ImportError as error:
        raise MissingExtraError("pypdf", extra="pdf", purpose="reading PDF files") from error
    voice = logging.getLogger("pypdf")  # it reports each oddity that it gets over
    level = voice.level
    voice.setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DataError(f"{path} is locked by a password", fix="save it without one")
        pages = [page.extract_text() for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    except (DataError, PermissionError):
        raise
    except Exception as error:  # damage shows itself in many ways
        first = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"{path} cannot be read as PDF ({type(error).__name__}: {first})",
            fix="open and save it again in a PDF program, or leave it out",
        ) from error
    finally:
        voice.setLevel(level)
    return "\n\n".join(page.strip() for page in pages if page.strip()), (title or "").strip()
