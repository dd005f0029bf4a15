"""Files and folders that are there whole or not at all, and who is writing where."""

from prunedge.utils.files.locks import (
    LOCK,
    NEW,
    PREFIX,
    WRITER,
    InUse,
    clear_below,
    clear_leftovers,
    held,
    is_ours,
)
from prunedge.utils.files.paths import (
    behind_links,
    is_address,
    make_folder,
    real_path,
    refuse_url,
)
from prunedge.utils.files.reading import (
    LARGEST_SECRET,
    irregular_kind,
    read_bytes,
    read_secret,
    read_text,
    require_regular,
)
from prunedge.utils.files.writing import write_bytes, write_text, written, written_folder

__all__ = [
    "LARGEST_SECRET",
    "LOCK",
    "NEW",
    "PREFIX",
    "WRITER",
    "InUse",
    "behind_links",
    "clear_below",
    "clear_leftovers",
    "held",
    "irregular_kind",
    "is_address",
    "is_ours",
    "make_folder",
    "read_bytes",
    "read_secret",
    "read_text",
    "real_path",
    "refuse_url",
    "require_regular",
    "write_bytes",
    "write_text",
    "written",
    "written_folder",
]
