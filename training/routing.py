"""Which adapter a passage is for: the domain whose passages are nearest to it."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file

from crosstask.loading_crosstask import get_text_encoder, select_hub_kwargs
from crosstask.utils.files import CENTROIDS_NAME
from crosstask.utils.pretrained import get_max_positions

# Of a domain, which has passages of many kinds: fitted on 400 passages of news and 400 of farms, MiniLM told
# 599 of 600 briefs apart with eight centroids each, and 583 with one.
_CLUSTERS = 8
# What every text encoder turns into an embedding of its own, by which centroids of another one are told.
_PROBE = "A question, a passage, and a summary that carries the answer."


class AdapterRouter:
    """
    Picks the adapter for a passage by the nearest centroid: each domain is a few clusters of its passages'
    embeddings, and a passage is for the domain that has the centroid with the highest cosine similarity.

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

    An embedding is the mean of the encoder's states over a text's tokens, of unit length (Reimers & Gurevych,
    2019, "Sentence-BERT", https://arxiv.org/abs/1908.10084). Texts beyond `max_length` tokens are cut.

    Args:
        text_encoder (`str` or `Path`): Hub id or folder of any text encoder that `AutoModel` loads, with its
            tokenizer; of a sequence-to-sequence model the encoder is taken.
        max_length (`int`, defaults to 256): Tokens.
        kwargs: Arguments of `from_pretrained`, such as `revision`.
    """

    def __init__(self, text_encoder: str | Path, max_length: int = 256, **kwargs):
        self.name = str(text_encoder)
        self.max_length = max_length
        self.tokenizer = AutoTokenizer.from_pretrained(text_encoder, **select_hub_kwargs(kwargs))
        # A pickle could run code of whoever made it.
        kwargs = {"use_safetensors": True, **kwargs}
        model = AutoModel.from_pretrained(text_encoder, **kwargs)
        # Of the whole model, for an encoder alone does not say which of two numbers is its own.
        self._positions = get_max_positions(model, "encoder" if model.config.is_encoder_decoder else None)
        self.text_encoder = get_text_encoder(model).eval()
        self.centroids: dict[str, torch.Tensor] = {}

    def fit(self, name: str, passages: Iterable[str]) -> "AdapterRouter":
        """
        Make the centroids of a domain, from a few hundred of its passages: those of eight clusters, as
        k-means finds them, or of fewer passages each by itself.

        Args:
            name (`str`): The adapter's name on the model; `"base"` is the model without an adapter.
            passages (`Iterable[str]`): Of the domain.

        Returns:
            The router itself.

        Raises:
            TypeError: where these are no texts.
            ValueError: where there is none, or the text encoder has no finite embedding of one.
        """
        from sklearn.cluster import KMeans  # takes a second

        passages = dict.fromkeys(_texts(passages, f"adapter {name}: "))
        passages = [passage for passage in passages if passage.strip()]
        if not passages:
            raise ValueError(f"adapter {name}: expected passages to make its centroids of, got none")
        embeddings = self.embed(passages)
        embeddings = embeddings[embeddings.any(1)]  # a text without tokens is of no domain
        if not len(embeddings) or not embeddings.isfinite().all():
            raise ValueError(f"adapter {name}: expected passages, {self.name} makes no embeddings of these")
        count = min(_CLUSTERS, len(embeddings.unique(dim=0)))
        found = KMeans(count, n_init="auto", random_state=0).fit(embeddings.numpy()).cluster_centers_
        self.centroids[name] = _unit(torch.from_numpy(found))
        return self

    def save(self, name: str, folder: str | Path) -> None:
        """
        Write a domain's centroids beside an adapter's weights, in a folder that is made where there is none;
        see `load`. Raises KeyError for an unknown name.
        """
        # Ids say which encoder it was; a folder's name says nothing to others.
        told = {} if Path(self.name).exists() else {"text_encoder": self.name}
        tensors = {"centroids": self.centroids[name], "probe": self.embed([_PROBE])[0]}
        content = save(tensors, {"format": "pt", **told})
        path = Path(folder, CENTROIDS_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{CENTROIDS_NAME}.tmp")
        temporary.write_bytes(content)
        os.replace(temporary, path)

    def load(self, name: str, adapter: str | Path, **kwargs) -> "AdapterRouter":
        """
        Take over the centroids that lie beside an adapter.

        Args:
            name (`str`): The adapter's name on the model.
            adapter (`str` or `Path`): Folder or Hub id.
            kwargs: `subfolder`, `revision`, `token` and what else says where.

        Returns:
            The router itself.

        Raises:
            OSError: where there are none, or they cannot be read.
            ValueError: where they were made with another text encoder, or are none.
        """
        # None where there is a folder or repository without it; what else is amiss is said.
        path = cached_file(
            str(adapter),
            CENTROIDS_NAME,
            _raise_exceptions_for_missing_entries=False,
            **select_hub_kwargs(kwargs),
        )
        if path is None:
            missing = Path(kwargs.get("subfolder") or "", CENTROIDS_NAME).as_posix()
            raise OSError(f"adapter {adapter}: has no {missing}; make it with `fit` and `save`")
        try:
            with safe_open(path, "pt") as file:
                told = (file.metadata() or {}).get("text_encoder", "one that its file does not name")
                centroids, probe = (file.get_tensor(name).float() for name in ("centroids", "probe"))
        except SafetensorError as error:
            raise OSError(f"adapter {adapter}: its {CENTROIDS_NAME} cannot be read ({error})") from error
        own = self.embed([_PROBE])[0]
        # Below 1 by the rounding of other devices and precisions.
        if probe.shape != own.shape or not probe @ own >= 0.99:
            raise ValueError(
                f"adapter {adapter}: its centroids were made with another text encoder ({told}), "
                f"expected that of this router, {self.name}"
            )
        shaped = centroids.dim() == 2 and len(centroids) and centroids.shape[1] == len(own)
        if not shaped or not centroids.isfinite().all():
            raise ValueError(
                f"adapter {adapter}: its centroids are a tensor of shape {tuple(centroids.shape)}, expected "
                f"finite numbers of shape (number of centroids, {len(own)})"
            )
        self.centroids[name] = _unit(centroids)
        return self

    def route(self, passages: Iterable[str]) -> list[str]:
        """The name of the adapter for each passage."""
        if not self.centroids:
            raise ValueError("expected centroids of some adapters (`fit` or `load`), the router has none")
        names = [name for name, centroids in self.centroids.items() for _ in centroids]
        nearest = self.embed(passages) @ torch.cat([*self.centroids.values()]).T
        return [names[index] for index in nearest.argmax(1).tolist()]

    @torch.inference_mode()
    def embed(self, texts: Iterable[str], batch_size: int = 32) -> torch.Tensor:
        """Embeddings of shape `(number of texts, hidden_size)`, float32, of unit length, on the CPU."""
        texts = _texts(texts)
        # Of like length together, so that little is padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        device = self.text_encoder.device
        limit = min(self.max_length, self.tokenizer.model_max_length, self._positions)
        size = self.text_encoder.config.hidden_size
        found = [torch.empty(0, size)]
        for start in range(0, len(order), batch_size):
            batch = [texts[index] for index in order[start : start + batch_size]]
            inputs = self.tokenizer(
                batch, truncation=True, max_length=limit, padding=True, return_tensors="pt"
            ).to(device)
            ids, mask = inputs["input_ids"], inputs["attention_mask"]
            if not ids.numel():  # not one token in all the batch, which encoders cannot read
                found.append(torch.zeros(len(batch), size))
                continue
            states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            mask = mask[..., None]
            # A text without any token, as a blank one may be, is like none.
            found.append(((states * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu())
        embeddings = torch.empty(len(texts), size)
        embeddings[order] = torch.cat(found)
        return _unit(embeddings)


def _texts(passages, where=""):
    """A list of them, or one sentence on what is wrong."""
    if isinstance(passages, str):
        raise TypeError(f"{where}expected a list of passages, got one text")
    if not isinstance(passages, Iterable):
        raise TypeError(f"{where}expected a list of passages, got {type(passages).__name__}")
    texts = list(passages)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{where}expected a list of passages, got {type(text).__name__} at place {place}")
    return texts


def _unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1)
