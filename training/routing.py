"""Choose an adapter for each passage: the adapter of the domain whose passages are nearest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file

from crosstask.configuration_crosstask import get_max_positions
from crosstask.loading_crosstask import get_text_encoder, select_hub_kwargs
from crosstask.utils.files import CENTROIDS_NAME, replace_file
from crosstask.utils.hub_names import find_checkpoint

# Clusters per domain, as a domain has passages of many kinds. Fitted on 400 passages each of news and farms,
# MiniLM found the nearer domain of 599 of 600 briefs with eight centroids per domain, and of 583 with one.
_CLUSTERS = 8
# The embedding of this text identifies a text encoder: it is saved beside the centroids and compared.
_PROBE = "A question, a passage, and a summary that carries the answer."
_MIN_TEXTS = 16  # for a threshold; of fewer passages, a half does not show what a domain looks like
_QUANTILE = 0.01  # share of a domain's passages that may fall below its threshold
_MIN_PROBE_SIMILARITY = 0.99  # below 1, as devices and precisions round differently


class AdapterRouter:
    """
    Choose the adapter for a passage by the nearest centroid.

    Each domain has the centroids of a few clusters of its passages' embeddings. A passage goes to the domain
    of the centroid with the highest cosine similarity, or to `"base"`, the model without an adapter, if that
    similarity is below the domain's threshold. The embedding of a text is the mean of the encoder's
    states over its tokens, scaled to unit length (Reimers & Gurevych, 2019, "Sentence-BERT",
    https://arxiv.org/abs/1908.10084).

    The embedding is computed here and not by the package sentence-transformers, which takes the decoder's
    states of BART and LED, and fails on RoBERTa's position limit and on texts without tokens.

    ```python
    >>> router = AdapterRouter("sentence-transformers/all-MiniLM-L6-v2")
    >>> router.fit("news", news_passages)
    >>> router.fit("law", law_passages).save("law", "runs/law/adapter")
    >>> router.load("medicine", "user/medicine-adapter")
    >>> router.route(["The court ruled ..."])
    ['law']
    >>> summarize = pipeline("question-summarization", model=model, processor=processor, router=router)
    >>> summarize(question="Who won?", passage="The court ruled ...", adapter="auto")
    ```

    Args:
        text_encoder (`str` or `Path`):
            Hub id or folder of a text encoder with its tokenizer: any model that `AutoModel` loads. Only the
            encoder of a sequence-to-sequence model is used.
        max_length (`int`, *optional*, defaults to 256):
            Number of tokens after which a text is cut.
        kwargs:
            Arguments of `from_pretrained`, such as `revision`.
    """

    def __init__(self, text_encoder: str | Path, max_length: int = 256, **kwargs: Any):
        text_encoder = find_checkpoint(text_encoder)
        self.name = text_encoder
        self.max_length = max_length
        self.tokenizer = AutoTokenizer.from_pretrained(text_encoder, **select_hub_kwargs(kwargs))
        # A pickle can run arbitrary code when it is loaded.
        model = AutoModel.from_pretrained(text_encoder, **{"use_safetensors": True, **kwargs})
        # Read from the complete model, as LED's encoder alone does not tell its positions from the decoder's.
        self._max_positions = get_max_positions(model, "encoder" if model.config.is_encoder_decoder else None)
        self.text_encoder = get_text_encoder(model).eval()
        self.centroids: dict[str, torch.Tensor] = {}
        self.thresholds: dict[str, float] = {}

    def fit(self, name: str, passages: Iterable[str]) -> AdapterRouter:
        """
        Compute the centroids of a domain: those of eight k-means clusters, or the embeddings themselves if
        there are no more than eight different ones.

        The threshold of the domain is the similarity that 99% of its passages reach: the centroids of each
        half of the passages are compared with the other half. With fewer than 16 passages there is none.

        Args:
            name (`str`): Name of the adapter on the model; `"base"` is the model without an adapter.
            passages (`Iterable[str]`): A few hundred passages of the domain.

        Returns:
            The router.

        Raises:
            TypeError: If `passages` is not an iterable of texts.
            ValueError: If all passages are blank, or the text encoder has no finite embedding of one.
        """
        from sklearn.cluster import KMeans  # the import takes a second

        unique = dict.fromkeys(_check_texts(passages, f"adapter {name}: "))
        texts = [text for text in unique if text.strip()]
        if not texts:
            raise ValueError(f"adapter {name}: expected passages to compute its centroids from, got none")
        embeddings = self.embed(texts)
        embeddings = embeddings[embeddings.any(1)]  # a text without tokens has no domain
        if not len(embeddings) or not embeddings.isfinite().all():
            raise ValueError(
                f"adapter {name}: expected passages that {self.name} can embed, got embeddings that are zero "
                "or not finite"
            )

        def compute_centroids(embeddings: torch.Tensor) -> torch.Tensor:
            count = min(_CLUSTERS, len(embeddings.unique(dim=0)))
            clusters = KMeans(count, n_init="auto", random_state=0).fit(embeddings.numpy())
            return _normalize(torch.from_numpy(clusters.cluster_centers_))

        self.centroids[name] = compute_centroids(embeddings)
        self.thresholds.pop(name, None)
        if len(embeddings) >= _MIN_TEXTS:
            halves = embeddings[::2], embeddings[1::2]
            similarities = [
                (half @ compute_centroids(other).T).amax(1) for half, other in (halves, halves[::-1])
            ]
            self.thresholds[name] = float(torch.cat(similarities).quantile(_QUANTILE))
        return self

    def save(self, name: str, folder: str | Path) -> None:
        """
        Write the centroids of a domain into a folder, for [`~AdapterRouter.load`].

        Args:
            name (`str`): Name of the adapter on the model.
            folder (`str` or `Path`): Folder of the adapter's weights; it is created if it is missing.

        Raises:
            ValueError: If there are no centroids of this name.
        """
        if name not in self.centroids:
            known = ", ".join(self.centroids) or "none"
            raise ValueError(
                f"adapter {name!r}: the router has no centroids of it, it has {known}; `fit` it first"
            )
        # A Hub id tells others which encoder this is; the path of a folder on this machine does not.
        metadata = {} if Path(self.name).exists() else {"text_encoder": self.name}
        tensors = {"centroids": self.centroids[name], "probe": self.embed([_PROBE])[0]}
        if name in self.thresholds:
            tensors["threshold"] = torch.tensor(self.thresholds[name])
        content = save(tensors, {"format": "pt", **metadata})
        with replace_file(Path(folder, CENTROIDS_NAME)) as temporary:
            temporary.write_bytes(content)

    def load(self, name: str, adapter: str | Path, **kwargs: Any) -> AdapterRouter:
        """
        Load the centroids that were saved beside an adapter.

        Args:
            name (`str`): Name of the adapter on the model.
            adapter (`str` or `Path`): Folder or Hub id of the adapter.
            kwargs: `subfolder`, `revision`, `token` and other arguments of a download from the Hub.

        Returns:
            The router.

        Raises:
            OSError: If the file of centroids is missing or cannot be read.
            ValueError: If the centroids were computed with another text encoder, or are not finite numbers of
                the right shape.
        """
        path = cached_file(
            str(adapter),
            CENTROIDS_NAME,
            _raise_exceptions_for_missing_entries=False,
            **select_hub_kwargs(kwargs),
        )
        if path is None:
            missing = Path(kwargs.get("subfolder") or "", CENTROIDS_NAME).as_posix()
            raise OSError(f"adapter {adapter}: has no {missing}; create it with `fit` and `save`")
        try:
            with safe_open(path, "pt") as file:
                encoder = (file.metadata() or {}).get("text_encoder", "one that its file does not name")
                centroids, probe = (file.get_tensor(key).float() for key in ("centroids", "probe"))
                threshold = float(file.get_tensor("threshold")) if "threshold" in file.keys() else None
        except SafetensorError as error:
            raise OSError(f"adapter {adapter}: its {CENTROIDS_NAME} cannot be read ({error})") from error
        expected_probe = self.embed([_PROBE])[0]
        same_size = probe.shape == expected_probe.shape
        if not same_size or not probe @ expected_probe >= _MIN_PROBE_SIMILARITY:
            raise ValueError(
                f"adapter {adapter}: its centroids were computed with another text encoder ({encoder}), "
                f"expected that of this router, {self.name}"
            )
        size = len(expected_probe)
        has_shape = centroids.dim() == 2 and len(centroids) and centroids.shape[1] == size
        if not has_shape or not centroids.isfinite().all():
            raise ValueError(
                f"adapter {adapter}: its centroids are a tensor of shape {tuple(centroids.shape)}, expected "
                f"finite numbers of shape (number of centroids, {size})"
            )
        self.centroids[name] = _normalize(centroids)
        self.thresholds.pop(name, None)
        if threshold is not None:
            self.thresholds[name] = threshold
        return self

    def route(self, passages: Iterable[str]) -> list[str]:
        """Return the name of the adapter for each passage; "base" if no domain is near enough."""
        if not self.centroids:
            raise ValueError("expected centroids of some adapters (`fit` or `load`), the router has none")
        names = [name for name, centroids in self.centroids.items() for _ in centroids]
        similarities = self.embed(passages) @ torch.cat([*self.centroids.values()]).T
        nearest = similarities.max(1)
        return [
            names[index] if similarity >= self.thresholds.get(names[index], -1) else "base"
            for similarity, index in zip(nearest.values.tolist(), nearest.indices.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def embed(self, texts: Iterable[str], batch_size: int = 32) -> torch.Tensor:
        """
        Embed texts. A text without tokens gets zeros, which are as near to one centroid as to any other.

        Returns:
            `torch.Tensor` of shape `(number of texts, hidden_size)`: float32, of unit length, on the CPU.
        """
        texts = _check_texts(texts)
        # Texts of similar length share a batch, which saves padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        limit = min(self.max_length, self.tokenizer.model_max_length, self._max_positions)
        embeddings = torch.zeros(len(texts), self.text_encoder.config.hidden_size)
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [texts[index] for index in indices]
            inputs = self.tokenizer(
                batch, truncation=True, max_length=limit, padding=True, return_tensors="pt"
            ).to(self.text_encoder.device)
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            if ids.numel():  # encoders cannot read a batch without tokens
                states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
                mask = mask[..., None]
                embeddings[indices] = ((states * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu()
        return _normalize(embeddings)


def _check_texts(passages: Iterable[str], where: str = "") -> list[str]:
    """Return the passages as a list, or raise a `TypeError` that begins with `where`."""
    if isinstance(passages, str):
        raise TypeError(f"{where}expected a list of passages, got one text")
    if not isinstance(passages, Iterable):
        raise TypeError(f"{where}expected a list of passages, got {type(passages).__name__}")
    texts = list(passages)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{where}expected a list of passages, got {type(text).__name__} at index {index}")
    return texts


def _normalize(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
