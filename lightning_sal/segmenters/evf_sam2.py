"""EVF-SAM2: a referring expression becomes a prompt of SAM2's mask decoder.

Legend: B images of size H x W, E expressions on an image, N image-expression pairs, L text tokens, C channels,
h x w the decoder's grid (a quarter of the image fed to SAM2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lightning_sal.files.loading import built_from
from lightning_sal.files.reading import read_object
from lightning_sal.internals.resizing import resize_bytes
from lightning_sal.segmenters import published
from lightning_sal.segmenters.batching import planes, segment_distinct, views
from lightning_sal.segmenters.beit3 import BEiT3
from lightning_sal.segmenters.sam2_model import (
    ImageFeatures,
    build_sam2,
    decode,
    encode_images,
    normalised,
    to_image_frames,
    without_memory,
)
from lightning_sal.segmenters.weights import fill, find_folder, load_strictly, read_folder
from lightning_sal.tasks import SEMANTIC
from lightning_sal.transfer import indices, moved

_SAM2_PREFIX = "visual_model."


class EVFSAM2(nn.Module):
    """Referring segmentation by early vision-language fusion.

    prompt = MLP(BEiT3(image, expression)[class token]); mask = SAM2 decoder(SAM2 encoder(image), prompt) > 0.
    Zhang et al., "EVF-SAM: Early Vision-Language Fusion for Text-Prompted Segment Anything Model", arXiv:2406.20076.
    The defaults are the sizes of the published checkpoints.

    Args:
        sam2_config: Name of a YAML in the `sam2` package.
        sam2_overrides: Values by dotted key of that YAML.
        beit3: Arguments of `BEiT3`.
        hidden_size: Width of BEiT-3.
        out_dim: Width of SAM2's prompts, the `d_model` of its neck.
        image_size: Pixels of a side of the square that SAM2 sees; every image is squashed to it.
        multimask: True takes the best of three masks by predicted IoU (the multitask checkpoint); False takes the
            single mask, with SAM2's fallback where it is unstable, unless `sam2_overrides` switches that off.
        semantic: Whether the weights know `[semantic]` as one token (the multitask checkpoint); False leaves the marker
            out of the expressions.
        tokenizer: A tokenizer of transformers, with that token if `semantic`; only `segment` needs it.
        max_batch: Most images, and most image-expression pairs, in one forward pass of `segment` and `mask_logits`.
    """

    def __init__(
        self,
        sam2_config: str = "sam2_hiera_l.yaml",
        sam2_overrides: dict[str, Any] | None = None,
        beit3: dict[str, int] | None = None,
        hidden_size: int = 1024,
        out_dim: int = 256,
        image_size: int = 1024,
        multimask: bool = True,
        semantic: bool = True,
        tokenizer: Any = None,
        max_batch: int = 32,
    ) -> None:
        super().__init__()
        self.config = {
            "sam2_config": sam2_config,
            "sam2_overrides": dict(sam2_overrides or {}),
            "beit3": dict(beit3 or {}),
            "hidden_size": hidden_size,
            "out_dim": out_dim,
            "image_size": image_size,
            "multimask": multimask,
            "semantic": semantic,
            "max_batch": max_batch,
        }
        if max_batch < 1:
            raise ValueError(f"max_batch {max_batch} of EVFSAM2 must be at least 1")
        if tokenizer is not None and semantic:
            _check_tokenizer(tokenizer)
        self.image_size, self.multimask, self.semantic = image_size, multimask, semantic
        self.max_batch, self.tokenizer = max_batch, tokenizer
        self.visual_model = build_sam2(sam2_config, sam2_overrides or {}, image_size)
        self.mm_extractor = nn.ModuleDict({"beit3": BEiT3(**(beit3 or {}))})
        self.text_hidden_fcs = nn.ModuleList(
            [nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, out_dim))]
        )

    @property
    def beit3(self) -> BEiT3:
        return self.mm_extractor["beit3"]  # pyright: ignore[reportReturnType]

    def preprocess(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Both squashed and normalised views of an image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (3, image_size, image_size) for SAM2 and (3, S, S) for BEiT-3, in float32 on the image's device.

        Raises:
            ValueError: If the image has another shape or dtype.
        """
        return self._sam_view(planes(image))[0], self._beit_view(planes(image))[0]

    def _sam_view(self, images: Tensor) -> Tensor:
        # The reference resizes the bytes themselves: the result is rounded, and not as a rounded float result would be.
        return normalised(resize_bytes(images, (self.image_size,) * 2, "bilinear", antialias=False))

    def _beit_view(self, images: Tensor) -> Tensor:
        size = (self.beit3.image_size, self.beit3.image_size)
        return (F.interpolate(images / 255, size, mode="bicubic", align_corners=False) - 0.5) / 0.5

    def beit_images(self, images: Sequence[Tensor]) -> Tensor:
        """B images of (H, W, 3) uint8 -> (B, 3, S, S), what BEiT-3 sees."""
        return views(images, self._beit_view, self._device).to(self._dtype)

    def image_features(self, images: Sequence[Tensor]) -> ImageFeatures:
        """SAM2's features of B images of (H, W, 3) uint8, sizes may differ; one encoder pass for all."""
        return self.encode_images(views(images, self._sam_view, self._device).to(self._dtype))

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """SAM2's features of (B, 3, image_size, image_size) normalised images."""
        return encode_images(self.visual_model, pixels)

    def low_res_logits(
        self, features: ImageFeatures, image_index: Tensor, beit_images: Tensor, ids: Tensor, padding: Tensor
    ) -> Tensor:
        """Mask logits of N pairs on the decoder's grid; gradients reach every part.

        Args:
            features: Of B images.
            image_index: (N,) the image of each pair, in [0, B).
            beit_images: (B, 3, S, S) as BEiT-3 sees the images.
            ids: (N, L) token ids of each pair's expression.
            padding: (N, L) bool, True where `ids` is padding.

        Returns:
            (N, h, w) logits, the mask where > 0.
        """
        image_tokens = self.beit3.embed_images(beit_images).index_select(0, image_index)
        fused = self.beit3.encode(image_tokens, ids, padding)
        prompts = self.text_hidden_fcs[0](fused[:, :1])
        return decode(self.visual_model, features.select(image_index), prompts, multimask=self.multimask)

    def mask_logits(self, image: Tensor, ids: Sequence[Tensor]) -> Tensor:
        """Logits of E expressions at the image's own size, the mask where > 0.

        Args:
            image: (H, W, 3) uint8 RGB.
            ids: E >= 0 tensors of token ids, each with its start and end token.

        Returns:
            (E, H, W) float32.
        """
        if not ids:
            return torch.zeros(0, *image.shape[:2], device=self._device)
        return self.logits([image], [ids])[0]

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        """One mask an expression, in the frame of its image; evaluation mode, no gradient.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            prompts: For each image its E >= 0 expressions, tags removed, `[semantic]` kept. What exceeds BEiT-3's
                position table is cut off.

        Returns:
            B boolean tensors of shape (E, H, W) on the device of the weights, True inside the object.
        """
        return segment_distinct(self, images, prompts, self._logits_of_texts, self.max_batch)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, start and end token included, at most as many as BEiT-3 has positions for.

        Where the weights do not know `[semantic]` (`semantic=False`), it is dropped from the texts.
        """
        if self.tokenizer is None:
            raise ValueError("EVFSAM2 was built without a tokenizer: pass tokenizer=, or give token ids to mask_logits")
        if not texts:
            return []
        if not self.semantic:
            texts = [text.replace(SEMANTIC, " ").strip() for text in texts]
        return self.tokenizer(list(texts), truncation=True, max_length=self.beit3.max_tokens)["input_ids"]

    def collate(self, ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """N id tensors -> (N, L) ids and (N, L) padding mask, on the device of the weights."""
        longest = max(len(row) for row in ids)
        if longest > self.beit3.max_tokens:
            raise ValueError(f"an expression has {longest} tokens, BEiT-3 takes {self.beit3.max_tokens}: shorten it")
        lengths = torch.tensor([len(row) for row in ids])
        padding = torch.arange(longest)[None] >= lengths[:, None]
        return moved(pad_sequence(list(ids), batch_first=True), self._device), moved(padding, self._device)

    def _logits_of_texts(self, images: Sequence[Tensor], texts: Sequence[Sequence[str]]) -> list[Tensor]:
        return self.logits(images, [[torch.tensor(row) for row in self.tokenize(of_image)] for of_image in texts])

    def logits(self, images: Sequence[Tensor], ids: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """(E, H, W) logits for each image, E >= 1."""
        rows = [row for of_image in ids for row in of_image]
        index = indices([number for number, of_image in enumerate(ids) for _ in of_image], self._device)
        images = [moved(image, self._device) for image in images]
        features, beit_images = self.image_features(images), self.beit_images(images)
        chunks = [slice(start, start + self.max_batch) for start in range(0, len(rows), self.max_batch)]
        low = torch.cat([self.low_res_logits(features, index[c], beit_images, *self.collate(rows[c])) for c in chunks])
        return to_image_frames(low, images, [len(of_image) for of_image in ids])

    @property
    def _device(self) -> torch.device:
        return self.visual_model.no_mem_embed.device

    @property
    def _dtype(self) -> torch.dtype:
        return self.visual_model.no_mem_embed.dtype

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights under the published names; the weights of SAM2's memory, which images do not need, are left out.

        Raises:
            ValueError: If any other key is missing, unknown or of another shape.
        """
        load_strictly(self, without_memory(state, _SAM2_PREFIX), "the state dict")

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json, model.safetensors and the tokenizer; parameters in `dtype`, buffers as they are.

        Raises:
            FileExistsError: If the folder already holds a model.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if (folder / name).exists():
                raise FileExistsError(f"{folder} already holds a {name}: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().contiguous() for k, v in self.state_dict().items()}
        state |= {k: p.detach().to(dtype).contiguous() for k, p in self.named_parameters()}
        (folder / "config.json").write_text(json.dumps(self.config, indent=1) + "\n")
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        save_file(state, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, source: str | Path, dtype: torch.dtype = torch.float32) -> EVFSAM2:
        """A segmenter in evaluation mode, from a folder that `save_pretrained` wrote or a published checkpoint.

        Args:
            source: A folder, or a name on the hub, as "YxZhang/evf-sam2-multitask". A published checkpoint whose
                tokenizer knows `[semantic]` gives the best of three masks; the other one gives the single mask, and
                the marker is dropped from its expressions.
            dtype: Of the parameters; buffers are float32.

        Raises:
            FileNotFoundError: If the folder, or one of its files, is not there.
            ValueError: If the configuration is of another model or of unknown scale, or the weights do not fit it.
        """
        from accelerate import init_empty_weights

        folder = find_folder(source, published.FILES)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"segmenter folder {folder} has no config.json: give one that save_pretrained wrote, or a published one"
            )
        config = read_object(folder / "config.json")
        if config.get("model_type") == published.MODEL_TYPE:
            tokenizer, semantic = published.load_tokenizer(folder)
            arguments = published.constructor_arguments(config, semantic=semantic)
        elif "sam2_config" in config:
            tokenizer, arguments = _own_tokenizer(folder), config
        else:
            raise ValueError(f"{folder / 'config.json'} is not of an EVF-SAM2: give another folder or hub name")
        state = without_memory(read_folder(folder), _SAM2_PREFIX)
        # Without weights: random ones of full size would take most of a minute, and their memory.
        with built_from(str(folder / "config.json")), init_empty_weights():
            model = cls(**arguments, tokenizer=tokenizer)
        fill(model, state, str(folder), dtype)
        return model.eval()


def _own_tokenizer(folder: Path) -> Any:
    """What `save_pretrained` wrote, None where the segmenter had no tokenizer."""
    if not (folder / "tokenizer.json").is_file():
        return None
    from transformers import PreTrainedTokenizerFast

    with built_from(str(folder / "tokenizer.json")):
        return PreTrainedTokenizerFast.from_pretrained(folder)


def _check_tokenizer(tokenizer: Any) -> None:
    ids = tokenizer(SEMANTIC, add_special_tokens=False)["input_ids"]
    if ids != [tokenizer.convert_tokens_to_ids(SEMANTIC)] or ids == [tokenizer.unk_token_id]:
        raise ValueError(f"the segmenter's tokenizer encodes '{SEMANTIC}' as {ids}: add it as one token")
