"""Which names a file inside a bundle may have, on any operating system."""

import unicodedata

MAX_PATH_CHARACTERS = 240
"""Windows' limit of 260 (MAX_PATH) less room for the folder that a bundle is unpacked into."""

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "model.sig"


def path_problem(path: str) -> str | None:
    """Say why a relative path must not stand in a bundle; None when it may.

    Args:
        path: parts divided by "/", for example "engines/rtx/engine".
    """
    if not path:
        return "it is empty"
    if len(path) > MAX_PATH_CHARACTERS:
        return f"it is longer than {MAX_PATH_CHARACTERS} characters"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "it holds a control character"
    if "\\" in path or ":" in path:
        return "it holds a backslash or a colon"
    if path.startswith("/"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "it has an empty part, '.' or '..'"
    return None


def folded(path: str) -> str:
    """Return the path as a file system sees it that ignores case and Unicode's spellings."""
    return unicodedata.normalize("NFC", path).casefold()


def shown(path: str) -> str:
    """Return a hostile name in a form that is safe to print, at most 120 characters."""
    text = path.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 120 else f"{text[:117]}..."
