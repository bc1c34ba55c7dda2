"""From photographs to masks and reasons: a policy and a segmenter, without a Trainer.

from lightning_sal import Predictor

predictor = Predictor.load("tiny")
prediction = predictor("photo.jpg")
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lightning_sal.clients import default_limit, is_endpoint
from lightning_sal.clients.endpoint import AskedModel
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.files.loading import refuse_non_finite
from lightning_sal.inference.base import BasePredictor
from lightning_sal.inference.endpoint import UNEXPLAINED, EndpointPredictor
from lightning_sal.inference.responses import Prediction, Reading, gather, prediction_of
from lightning_sal.inference.words import explain
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.make import make_policy, require_attribution
from lightning_sal.policy.policy import Policy
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.segmenters.base import Segmenter
from lightning_sal.segmenters.named import load_segmenter
from lightning_sal.segmenters.tiny import embedded_segmenter


@dataclass(frozen=True, slots=True)
class Predictor(BasePredictor):
    """Answers image groups by the likeliest response of a policy, and turns its expressions into masks.

    Args:
        policy: The multimodal LLM.
        segmenter: Finds the mask of each expression.
        max_new_tokens: Limit of response tokens, > 0; a response that reaches it is cut off.
        reading: How answers are read: strict, as the format has it; lenient, where that finds nothing to segment, as a model
            may write that has not learned the format.
    """

    policy: Policy
    segmenter: Segmenter
    max_new_tokens: int = 512
    reading: Reading = "strict"

    @property
    def unexplained(self) -> str | None:
        """See `BasePredictor`."""
        try:
            self.policy.require_attribution()
        except ValueError as error:
            return str(error)
        return None

    @classmethod
    def load(
        cls,
        model: str = "tiny",
        segmenter: str | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_new_tokens: int = 512,
        max_pixels: int | None = None,
        reading: Reading = "strict",
        explained: bool = False,
    ) -> Predictor:
        """Load weights and be ready to answer.

        Args:
            model: As in `PolicyConfig`: `tiny`, `tiny-early`, `tiny-varied`, `tiny-vqa`, `tiny-perception`, a folder, a hub
                name; or a checkpoint of `lightning fit`, or a folder of adapters in peft's format, either of which
                names its base model.
            segmenter: As `lightning_sal.segmenters.named.load_segmenter` takes it: folder or hub name of an EVF-SAM2 or a
                SAM 3, a file of SAM2, or FILE.py:NAME; None takes the embedded small ones.
            device: As torch names it; None takes cuda where there is one.
            dtype: Of the policy's frozen weights: float32, bfloat16 or float16; None takes that of the checkpoint, else
                float32.
            max_new_tokens: Limit of response tokens, > 0.
            max_pixels: Most pixels that an image is resized to for the policy; None keeps what the model states.
            reading: How answers are read: strict or lenient; see the class.
            explained: Whether its predictions are to say where each word came from: a model that cannot is not loaded.

        Raises:
            OSError: If there is no such model.
            ValueError: If weights do not fit exactly, hold NaN, or cannot be trusted, there is no such device, or its
                words cannot be explained and are to be.
        """
        device = find_device(device or default_device())
        settings = {key: value for key, value in (("dtype", dtype), ("max_pixels", max_pixels)) if value is not None}
        policy = load_policy(model, settings, attributed=explained).requires_grad_(False).eval().to(device)
        return cls(policy, _load_segmenter(segmenter, device), max_new_tokens, reading)

    @torch.no_grad()
    def predict(self, groups: Sequence[ImageGroup], *, explained: bool = False) -> list[Prediction]:
        """One prediction a group; all go through the models together.

        Args:
            groups: B image groups.
            explained: Whether the predictions say where each word came from, by their `maps` and `explanation`: two more
                passes over the responses.

        Raises:
            ValueError: If a prompt is longer than the policy's limit, or an image too narrow for it.
        """
        prompts = self.policy.encode(groups)
        rollout = self.policy.sample(prompts, self.max_new_tokens, temperature=0)
        return self._predictions(groups, prompts, rollout, explained)

    def stream(self, group: ImageGroup, *, explained: bool = False) -> Generator[str, None, Prediction]:
        """See `BasePredictor.stream`."""
        with torch.no_grad():
            prompts = self.policy.encode([group])
        rollout = yield from self.policy.stream(prompts, self.max_new_tokens)
        return self._predictions([group], prompts, rollout, explained)[0]

    def _predictions(
        self, groups: Sequence[ImageGroup], prompts: Prompts, rollout: Rollout, explained: bool
    ) -> list[Prediction]:
        predictions = [
            prediction_of(response) for response in gather(groups, rollout, self.segmenter, reading=self.reading)
        ]
        if not explained:
            return predictions
        found = explain([each.answer for each in predictions], groups, rollout, self.policy, prompts)
        return [
            replace(each, maps=explanation.label_maps, explanation=explanation)
            for each, explanation in zip(predictions, found, strict=True)
        ]


def load_predictor(
    model: str = "tiny",
    segmenter: str | None = None,
    *,
    device: str | None = None,
    max_new_tokens: int | None = None,
    reading: Reading | None = None,
    explained: bool = False,
    **settings: Any,
) -> BasePredictor:
    """What answers by any model: one that is loaded here, or one behind an endpoint, without its weights.

    Args:
        model: `openai:NAME` or `gemini:NAME` for a model behind an endpoint, whose key comes from the environment alone;
            all else as `Predictor.load` takes it.
        segmenter: As `Predictor.load` takes it.
        device: Of the segmenter, and of a policy; None takes cuda where there is one.
        max_new_tokens: Limit of response tokens, > 0; None takes 512, or 2048 for an endpoint, where thoughts count too.
        reading: How answers are read, strict or lenient; None takes strict, or lenient for an endpoint, whose model never
            saw the format.
        explained: See `Predictor.load`; a model behind an endpoint cannot.
        settings: Others that `Predictor.load` takes, or for a model behind an endpoint fields of `EndpointConfig`, as
            `base_url`.

    Raises:
        OSError: If there is no such model.
        UsageError: If a library, a key, or the server of an endpoint is missing.
        ValueError: See `Predictor.load`.
    """
    limit = default_limit(model) if max_new_tokens is None else max_new_tokens
    if not is_endpoint(model):
        settings |= {"max_new_tokens": limit, "reading": reading or "strict", "explained": explained}
        return Predictor.load(model, segmenter, device=device, **settings)
    asked = AskedModel(EndpointConfig(model, **settings), limit)
    if explained:
        raise ValueError(UNEXPLAINED.format(model=model))
    asked.check()
    own_segmenter = _load_segmenter(segmenter, find_device(device or default_device()))
    return EndpointPredictor(asked, own_segmenter, reading or "lenient")


def _load_segmenter(name: str | None, device: str) -> Any:
    """A segmenter by its name, or the embedded ones; on the device and without gradients where it is a module."""
    segmenter = embedded_segmenter() if name is None else load_segmenter(name)
    return segmenter.requires_grad_(False).to(device) if isinstance(segmenter, torch.nn.Module) else segmenter


def default_device() -> str:
    """The device that is taken where none is named."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def find_device(name: str) -> str:
    """A name of torch's for a device, once a number has been there and back.

    Raises:
        ValueError: If there is no such device here.
    """
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: of a torch without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device '{name}' cannot be used on this machine; cpu can: {reason}") from error
    return name


def load_policy(model: str, settings: dict[str, Any], *, attributed: bool = False) -> Policy:
    """The policy of a name, a folder, a checkpoint file or a folder of adapters.

    Args:
        model: See `Predictor.load`.
        settings: Fields of `PolicyConfig` that are to be other than what the checkpoint, or the default, says.
        attributed: Whether it is to be asked for attribution: a policy that cannot is refused before its weights are read.

    Raises:
        ValueError: If it is a model behind an endpoint, it cannot do what it is to do, or weights do not fit exactly, hold
            NaN, or cannot be trusted.
    """
    if is_endpoint(model):
        raise ValueError(
            f"{model} is behind an endpoint, and no weights of it are here: `segment`, `demo` and "
            "lightning_sal.load_predictor take it"
        )
    path = Path(model)
    if path.is_file():
        return _from_checkpoint(path, settings, attributed)
    if (path / "adapter_config.json").is_file():
        return _from_adapter(path, settings, attributed)
    return _make_policy(PolicyConfig(model, **settings), attributed)


def _make_policy(config: PolicyConfig, attributed: bool) -> Policy:
    if attributed:
        require_attribution(config)
    return make_policy(config)


def _from_checkpoint(path: Path, settings: dict[str, Any], attributed: bool) -> Policy:
    from lightning_sal.policy.export import check_weights, read_checkpoint

    config, weights = read_checkpoint(path)
    if config is None:
        raise ValueError(
            f"{path} does not say what its policy is: make a model of it by `lightning-sal export --config`"
        )
    policy = _make_policy(replace(config, gradient_checkpointing=False, feature_cache=None, **settings), attributed)
    check_weights(str(path), weights, {name: p for name, p in policy.net.named_parameters() if p.requires_grad})
    refuse_non_finite(weights, str(path))
    policy.net.load_state_dict(weights, strict=False)
    return policy


def _from_adapter(folder: Path, settings: dict[str, Any], attributed: bool) -> Policy:
    from lightning_sal.policy.export import check_layer_names, read_adapter, with_adapter

    config, weights = read_adapter(folder)
    if config.base_model_name_or_path is None:
        raise ValueError(f"{folder} does not say what its base model is: merge it by `lightning-sal export --model`")
    refuse_non_finite(weights, str(folder))
    policy = _make_policy(PolicyConfig(config.base_model_name_or_path, **settings), attributed)
    check_layer_names(str(folder), weights, policy.net)
    policy.net = with_adapter(str(folder), policy.net, config, weights)
    return policy
