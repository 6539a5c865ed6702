"""The key-value store by which the hosts of a run exchange small values."""

from typing import Any, Protocol

import jax
from jax._src import distributed  # the store has no public name


class Store(Protocol):
    """A key-value store that all processes share."""

    def set(self, key: str, value: bytes) -> None:
        """Writes a value, also over another one."""
        ...

    def get(self, key: str, seconds: float) -> bytes | None:
        """Waits for a value; None if it is not there in time."""
        ...

    def list(self, prefix: str) -> dict[int, bytes]:
        """Values of ``prefix/N`` by N."""
        ...

    def delete(self, key: str) -> None:
        """Removes a value."""
        ...


class JaxStore:
    """The store of JAX's coordination service."""

    def __init__(self):
        self._client: Any = distributed.global_state.client

    def set(self, key: str, value: bytes) -> None:
        """Writes a value, also over another one."""
        self._client.key_value_set_bytes(key, value, allow_overwrite=True)

    def get(self, key: str, seconds: float) -> bytes | None:
        """Waits for a value; None if it is not there in time."""
        try:
            return self._client.blocking_key_value_get_bytes(key, int(seconds * 1000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error):
                return None
            raise

    def list(self, prefix: str) -> dict[int, bytes]:
        """Values of ``prefix/N`` by N."""
        found = self._client.key_value_dir_get_bytes(f"{prefix}/")
        return {int(key.rsplit("/", 1)[1]): value for key, value in found}

    def delete(self, key: str) -> None:
        """Removes a value."""
        self._client.key_value_delete(key)


def host() -> str:
    """Where process 0 is, as the others reach it."""
    return distributed.global_state.coordinator_address.rpartition(":")[0].strip("[]")
