"""EVF-SAM2: a referring expression becomes a prompt of SAM2's mask decoder.

Legend: B images of size H x W, E expressions on an image, N image-expression pairs, L text tokens, C channels,
h x w the decoder's grid (a quarter of the image fed to SAM2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lightning_sal.segmenters.beit3 import BEiT3
from lightning_sal.segmenters.sam2_model import build_sam2

_PIXEL_MEAN = (123.675, 116.28, 103.53)
_PIXEL_STD = (58.395, 57.12, 57.375)
# Parts of SAM2 that follow objects through a video. Published files carry their weights; a single image needs none.
_VIDEO_KEYS = tuple(
    f"visual_model.{part}"
    for part in (
        "memory_attention.",
        "memory_encoder.",
        "mask_downsample.",
        "maskmem_tpos_enc",
        "no_mem_pos_enc",
        "no_obj_ptr",
        "obj_ptr_proj.",
    )
)


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What SAM2 knows of B images before it hears an expression.

    Args:
        embedding: (B, C, h / 4, w / 4).
        high_res: (B, C / 8, h, w) and (B, C / 4, h / 2, w / 2).
    """

    embedding: Tensor
    high_res: tuple[Tensor, Tensor]

    def select(self, index: Tensor) -> ImageFeatures:
        """The features of image `index[n]` for each pair n."""
        fine, middle = self.high_res
        return ImageFeatures(
            self.embedding.index_select(0, index), (fine.index_select(0, index), middle.index_select(0, index))
        )


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
        tokenizer: A fast tokenizer of transformers that knows `[semantic]` as one token; only `segment` needs it.
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
            "max_batch": max_batch,
        }
        if tokenizer is not None:
            _check_tokenizer(tokenizer)
        self.image_size, self.multimask, self.max_batch, self.tokenizer = image_size, multimask, max_batch, tokenizer
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
        return self._sam_view(image), self._beit_view(image)

    def _sam_view(self, image: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        # The reference resizes the bytes themselves: the result is rounded, and not as a rounded float result would be
        resized = F.interpolate(_planes(image), size, mode="bilinear", align_corners=False)[0]
        mean, std = (torch.tensor(v, device=image.device)[:, None, None] for v in (_PIXEL_MEAN, _PIXEL_STD))
        return (resized - mean) / std

    def _beit_view(self, image: Tensor) -> Tensor:
        size = (self.beit3.image_size, self.beit3.image_size)
        return (F.interpolate(_planes(image) / 255, size, mode="bicubic", align_corners=False)[0] - 0.5) / 0.5

    def beit_images(self, images: Sequence[Tensor]) -> Tensor:
        """B images of (H, W, 3) uint8 -> (B, 3, S, S), what BEiT-3 sees."""
        return self._place(torch.stack([self._beit_view(image) for image in images]))

    def image_features(self, images: Sequence[Tensor]) -> ImageFeatures:
        """SAM2's features of B images of (H, W, 3) uint8, sizes may differ; one encoder pass an image."""
        return self.encode_images(self._place(torch.stack([self._sam_view(image) for image in images])))

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """SAM2's features of (B, 3, image_size, image_size) normalised images."""
        sam = self.visual_model
        # The neck adds its top-down path in float32 whatever the dtype of the weights
        fine, middle, coarse = (level.to(pixels.dtype) for level in sam.image_encoder(pixels)["backbone_fpn"])
        high_res = (sam.sam_mask_decoder.conv_s0(fine), sam.sam_mask_decoder.conv_s1(middle))
        return ImageFeatures(coarse + sam.no_mem_embed.view(1, -1, 1, 1), high_res)

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
        chosen, sam = features.select(image_index), self.visual_model
        _, dense = sam.sam_prompt_encoder(points=None, boxes=None, masks=None)
        masks, iou, _, _ = sam.sam_mask_decoder(
            image_embeddings=chosen.embedding,
            image_pe=self._image_pe(),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense,
            multimask_output=self.multimask,
            repeat_image=False,
            high_res_features=list(chosen.high_res),
        )
        best = iou.argmax(dim=1)
        return masks[torch.arange(len(masks), device=masks.device), best]

    def mask_logits(self, image: Tensor, ids: Sequence[Tensor]) -> Tensor:
        """Logits of E expressions at the image's own size, the mask where > 0.

        Args:
            image: (H, W, 3) uint8 RGB.
            ids: E >= 0 tensors of token ids, each with its start and end token.

        Returns:
            (E, H, W) float32.
        """
        if not ids:
            return torch.zeros(0, *image.shape[:2], device=self.visual_model.no_mem_embed.device)
        return self.logits([image], [ids])[0]

    @torch.no_grad()
    def segment(self, images: Sequence[Tensor], expressions: Sequence[Sequence[str]]) -> list[Tensor]:
        """One mask an expression, in the frame of its image; evaluation mode, no gradient.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            expressions: For each image its E >= 0 expressions, tags removed, `[semantic]` kept. What exceeds BEiT-3's
                position table is cut off.

        Returns:
            B boolean tensors of shape (E, H, W) on the device of the weights, True inside the object.
        """
        if len(images) != len(expressions):
            raise ValueError(
                f"segment got {len(images)} images and {len(expressions)} lists of expressions: give one each"
            )
        # The G responses to a prompt ask about the same images, and often in the same words: each image and each of its
        # expressions is seen once.
        distinct = {id(image): image for image in images}
        asked: dict[int, dict[str, Tensor]] = {key: {} for key in distinct}
        for image, texts in zip(images, expressions, strict=True):
            asked[id(image)] |= dict.fromkeys(texts, torch.empty(0))
        keys = [key for key, texts in asked.items() if texts]
        with _evaluating(self):
            for start in range(0, len(keys), self.max_batch):
                part = keys[start : start + self.max_batch]
                ids = [[torch.tensor(row) for row in self.tokenize(list(asked[key]))] for key in part]
                for key, logits in zip(part, self.logits([distinct[key] for key in part], ids), strict=True):
                    asked[key] = dict(zip(asked[key], logits > 0, strict=True))
        none = torch.zeros(0, dtype=torch.bool, device=self.visual_model.no_mem_embed.device)
        return [
            torch.stack([asked[id(image)][text] for text in texts]) if texts else none.new_zeros(0, *image.shape[:2])
            for image, texts in zip(images, expressions, strict=True)
        ]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, start and end token included, at most as many as BEiT-3 has positions for."""
        if self.tokenizer is None:
            raise ValueError("EVFSAM2 was built without a tokenizer: pass tokenizer=, or give token ids to mask_logits")
        if not texts:
            return []
        return self.tokenizer(list(texts), truncation=True, max_length=self.beit3.max_tokens)["input_ids"]

    def collate(self, ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """N id tensors -> (N, L) ids and (N, L) padding mask, on the device of the weights."""
        longest = max(len(row) for row in ids)
        if longest > self.beit3.max_tokens:
            raise ValueError(f"an expression has {longest} tokens, BEiT-3 takes {self.beit3.max_tokens}: shorten it")
        device = self.text_hidden_fcs[0][0].weight.device  # pyright: ignore[reportIndexIssue]
        lengths = torch.tensor([len(row) for row in ids])
        padding = torch.arange(longest)[None] >= lengths[:, None]
        return pad_sequence(list(ids), batch_first=True).to(device), padding.to(device)

    def logits(self, images: Sequence[Tensor], ids: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """(E, H, W) logits for each image, E >= 1."""
        rows = [row for of_image in ids for row in of_image]
        index = torch.tensor([number for number, of_image in enumerate(ids) for _ in of_image])
        index = index.to(self.visual_model.no_mem_embed.device)
        features, beit_images = self.image_features(images), self.beit_images(images)
        chunks = [slice(start, start + self.max_batch) for start in range(0, len(rows), self.max_batch)]
        low = torch.cat(
            [self.low_res_logits(features, index[c], beit_images, *self.collate(rows[c])) for c in chunks]
        ).float()
        return [
            F.interpolate(grids[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
            for image, grids in zip(images, low.split([len(rows) for rows in ids]), strict=True)
        ]

    def _place(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.visual_model.no_mem_embed)

    def _image_pe(self) -> Tensor:
        """(1, C, h / 4, w / 4) position code, computed in float32 whatever the dtype of the weights."""
        encoder = self.visual_model.sam_prompt_encoder
        matrix = {"positional_encoding_gaussian_matrix": encoder.pe_layer.positional_encoding_gaussian_matrix.float()}
        code = torch.func.functional_call(encoder.pe_layer, matrix, (encoder.image_embedding_size,))
        return code[None].to(self.visual_model.no_mem_embed)

    def load_reference_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights under the published names; the weights of SAM2's memory, which images do not need, are left out.

        Raises:
            ValueError: If any other key is missing, unknown or of another shape.
        """
        _load_strictly(self, {k: v for k, v in state.items() if not k.startswith(_VIDEO_KEYS)}, "the state dict")

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write config.json, model.safetensors and the tokenizer; parameters in `dtype`, buffers as they are.

        Raises:
            FileExistsError: If the folder already holds a model.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        if (folder / "model.safetensors").exists():
            raise FileExistsError(f"{folder} already holds a model.safetensors: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().contiguous() for k, v in self.state_dict().items()}
        state |= {k: p.detach().to(dtype).contiguous() for k, p in self.named_parameters()}
        (folder / "config.json").write_text(json.dumps(self.config, indent=1) + "\n")
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        save_file(state, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> EVFSAM2:
        """A segmenter in float32 and evaluation mode from a folder that `save_pretrained` wrote.

        Raises:
            FileNotFoundError: If config.json or model.safetensors is not there.
            ValueError: If the weights do not fit the configuration.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"segmenter folder {folder} has no {name}: give one that save_pretrained wrote")
        tokenizer = None
        if (folder / "tokenizer.json").is_file():
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        model = cls(**json.loads((folder / "config.json").read_text()), tokenizer=tokenizer)
        weights = folder / "model.safetensors"
        _load_strictly(model, {k: v.float() for k, v in load_file(weights).items()}, str(weights))
        return model.eval()


def _planes(image: Tensor) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) uint8."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be (H, W, 3) uint8, got {tuple(image.shape)} {image.dtype}")
    return image.permute(2, 0, 1)[None].contiguous()


def _check_tokenizer(tokenizer: Any) -> None:
    ids = tokenizer("[semantic]", add_special_tokens=False)["input_ids"]
    if ids != [tokenizer.convert_tokens_to_ids("[semantic]")] or ids == [tokenizer.unk_token_id]:
        raise ValueError(f"the segmenter's tokenizer encodes '[semantic]' as {ids}: add it as one token")


def _load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    own = module.state_dict()
    faults = [f"missing {k}" for k in own if k not in state] + [f"unknown {k}" for k in state if k not in own]
    faults += [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{source} does not fit this EVF-SAM2: {'; '.join(faults[:3])}{more}")
    module.load_state_dict(dict(state))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, each submodule's own mode after."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
