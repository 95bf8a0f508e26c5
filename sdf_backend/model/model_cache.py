"""Loaded models by file, within a limit of memory."""

from dataclasses import dataclass
from pathlib import Path

import torch

from sdf_backend.model.store import Model, ModelStore, check_model_file, file_digest, load_model
from sdf_backend.progress import Phase, Progress


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    digest : hash of its file, for the keys of cached content
    modified : time of the file's last change, nanoseconds
    """

    model: Model
    digest: str
    modified: int


class ModelCache:
    """Models of a store on one device; beyond `limit` bytes the least recently used are released."""

    def __init__(self, store: ModelStore, device: torch.device, limit: int) -> None:
        self.store, self.device, self.limit = store, device, limit
        self._loaded: dict[Path, LoadedModel] = {}  # the most recently used last

    def load(self, name: str, progress: Progress) -> LoadedModel:
        """A model by name, read again if its file has changed; raises `InputError` that lists the known names."""
        path = self.store.find(name)
        modified = check_model_file(path).st_mtime_ns
        loaded = self._loaded.pop(path, None)
        if loaded is None or loaded.modified != modified:
            progress(Phase.LOADING, 0.0)
            model = load_model(path, self.device)
            loaded = LoadedModel(model, file_digest(path), modified)
            progress(Phase.LOADING, 1.0)
        self._loaded[path] = loaded
        while len(self._loaded) > 1 and sum(one.model.nbytes for one in self._loaded.values()) > self.limit:
            del self._loaded[next(iter(self._loaded))]
        return loaded

    def names(self) -> list[str]:
        """Names of the models in memory, the least recently used first."""
        return [loaded.model.card.name for loaded in self._loaded.values()]
