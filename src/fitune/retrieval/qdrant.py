"""Search by meaning in a Qdrant database, for more passages than one machine should compare.

    docker run -p 6333:6333 -v "$PWD/qdrant:/qdrant/storage" qdrant/qdrant

starts a server for ``location="http://localhost:6333"``; a folder, or ``:memory:``, needs none. A
server that asks for a key is given that of the environment, `QDRANT_API_KEY`.
Knows qdrant-client; knows nothing of how vectors come about (`encoder`).
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fitune.errors import ConfigError, FituneError, MissingExtraError, ResourceError
from fitune.retrieval import Hit, check_k, check_passages
from fitune.retrieval.dense import as_encoder
from fitune.retrieval.encoder import Encoder
from fitune.runs import explain_damage, read_json, write_json

_AT_ONCE = 1_000  # points sent together

MEMORY = ":memory:"


class Qdrant:
    """Cosine similarity of an encoder's vectors, in a collection of Qdrant.

    Args:
        model, query_prefix, passage_prefix, device: as `Dense` takes them.
        location: a server's URL, a folder (one process at a time), or ``:memory:``.
        collection: its name there.
        replace: whether `build` may take the place of a collection of that name.
        exact: compare every passage, as `Dense` does; else Qdrant's graph of neighbours is
            followed, which is quicker from about a million passages on and may miss some. Without a
            server, always exact.
    """

    def __init__(
        self,
        *,
        model: str | Encoder = "minilm-l6",
        query_prefix: str = "",
        passage_prefix: str = "",
        device: str = "cpu",
        location: str = MEMORY,
        collection: str = "fitune",
        replace: bool = False,
        exact: bool = True,
    ) -> None:
        self._client = _connect(location)
        self.encoder = as_encoder(model, query_prefix, passage_prefix, device)
        self._location, self._collection = location, collection
        self._replace, self._exact = replace, exact

    def build(self, passages: Sequence[str]) -> None:
        """
        Raises:
            ConfigError: there is such a collection, and it may not be replaced.
            ResourceError: the database refuses or does not answer.
        """
        from qdrant_client import models

        check_passages(passages)
        client, name = self._client, self._collection
        with _explained(self._location):
            if client.collection_exists(name):
                if not self._replace:
                    raise ConfigError(
                        f"there is a collection '{name}' at {self._location}",
                        fix="set replace=True to take its place, or another collection",
                    )
                client.delete_collection(name)
            size = self.encoder.dimension
            client.create_collection(
                name,
                vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE),
            )
        for begin in range(0, len(passages), _AT_ONCE):
            part = passages[begin : begin + _AT_ONCE]
            vectors, _ = self.encoder.passages(part)
            points = models.Batch(
                ids=list(range(begin, begin + len(part))),
                vectors=vectors.tolist(),
                payloads=[{"text": text} for text in part],
            )
            with _explained(self._location):
                client.upsert(name, points=points, wait=True)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Of passages with equal scores at the k-th place, Qdrant picks one as it likes.

        Raises:
            ConfigError: `k` is less than 1, or there is no such collection.
            ResourceError: the database refuses or does not answer.
        """
        from qdrant_client import models

        check_k(k)
        asked = [number for number, query in enumerate(queries) if query.strip()]
        vectors = self.encoder.queries([queries[number] for number in asked])
        how = models.SearchParams(exact=self._exact)
        requests = [
            models.QueryRequest(query=vector, limit=k, params=how) for vector in vectors.tolist()
        ]
        with _explained(self._location):
            if not self._client.collection_exists(self._collection):
                raise ConfigError(
                    f"there is no collection '{self._collection}' at {self._location}",
                    fix="call build with passages",
                )
            answers = self._client.query_batch_points(self._collection, requests=requests)
        found: list[list[Hit]] = [[] for _ in queries]
        for number, answer in zip(asked, answers, strict=True):
            hits = [Hit(int(point.id), float(point.score)) for point in answer.points]
            found[number] = sorted(hits, key=lambda hit: (-hit.score, hit.passage))
        return found

    @property
    def parameters(self) -> int:
        return self.encoder.parameters

    def save(self, folder: Path) -> None:
        """How to find the collection again; the passages stay where they are.

        Raises:
            ConfigError: they are in memory, which ends with the process.
        """
        if self._location == MEMORY:
            raise ConfigError(
                "a collection in memory cannot be saved", fix="set location to a folder or a URL"
            )
        about: dict[str, Any] = {"location": self._location, "collection": self._collection}
        about |= {"replace": self._replace, "exact": self._exact, "encoder": self.encoder.options}
        write_json(folder / "qdrant.json", about)

    @classmethod
    def load(cls, folder: Path) -> Qdrant:
        about = read_json(folder / "qdrant.json")
        with explain_damage(folder / "qdrant.json"):
            encoder = Encoder(**about.pop("encoder"))
            return cls(model=encoder, **about)

    def close(self) -> None:
        """Let go of the folder, so that another process may open it."""
        self._client.close()


def _connect(location: str) -> Any:
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise MissingExtraError(
            "qdrant_client", extra="qdrant", purpose="searching in Qdrant"
        ) from error
    with _explained(location):
        if location == MEMORY:
            return QdrantClient(location=MEMORY)
        if "://" in location:
            # The client otherwise asks the server for its version, and warns where it is another.
            return QdrantClient(
                url=location,
                api_key=os.environ.get("QDRANT_API_KEY"),
                check_compatibility=False,
            )
        return QdrantClient(path=location)


@contextlib.contextmanager
def _explained(location: str) -> Iterator[None]:
    """Turn what the client raises, in several libraries' ways, into one sentence.

    Raises:
        ResourceError: for any of it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to use a server from 20,000 points on
            yield
    except FituneError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
        raise ResourceError(
            f"Qdrant at {location} cannot do this ({said})",
            fix="check that it runs there, and that no other process has its folder open",
        ) from error
