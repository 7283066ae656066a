"""Files under a URL: local disk, object storage, the Hugging Face Hub, memory. The only package that touches fsspec."""

from imagegen_dist.storage.backend import forget_clients
from imagegen_dist.storage.errors import AccessError, CredentialsError, StorageError
from imagegen_dist.storage.listing import unusable_line
from imagegen_dist.storage.store import PATIENCE_S, Store, file_at, reached
from imagegen_dist.storage.temporary import check_temporary_room, temporary_file, temporary_folder

__all__ = [
    "PATIENCE_S",
    "AccessError",
    "CredentialsError",
    "StorageError",
    "Store",
    "check_temporary_room",
    "file_at",
    "forget_clients",
    "reached",
    "temporary_file",
    "temporary_folder",
    "unusable_line",
]
