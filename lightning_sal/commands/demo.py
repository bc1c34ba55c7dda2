"""a web page to try a model on photographs, or two models side by side"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn

    from lightning_sal.demo.bounds import Bounds

from lightning_sal.clients.options import add_endpoint, check_models, settings_of, whole
from lightning_sal.internals.gpus import device
from lightning_sal.internals.hub import weights


def main(argv: list[str]) -> int:
    """Serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal demo",
        description="Serve a web page: drop photographs, read the reasoning as it comes, point at an expression to see its "
        "mask, take the masks home. The page asks nothing of other hosts, but for answers of a model behind an endpoint. "
        "What is uploaded goes when it ends.",
    )
    parser.add_argument(
        "--model",
        type=weights,
        default="tiny",
        help="the policy: tiny (which knows procedural scenes alone), a folder, a hub name, a checkpoint file, a folder of "
        "adapters, or openai:NAME or gemini:NAME for one behind an endpoint",
    )
    parser.add_argument(
        "--compare", type=weights, metavar="MODEL", help="a second one, whose answers stand beside those of the first"
    )
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="FILE.py:NAME",
        help="a task of your own that the page offers too; can be given several times",
    )
    parser.add_argument(
        "--segmenter",
        type=weights,
        help="an EVF-SAM2 or a SAM 3, folder or hub name; a .pt or .safetensors file of SAM2, for boxes and points; or your "
        "own as FILE.py:NAME; by default the embedded small ones",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=whole(1),
        help="limit of a response; 512, or behind an endpoint 2048, thoughts included",
    )
    parser.add_argument("--max-pixels", type=whole(1), help="most pixels of an image that the policy sees")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the policy's frozen weights")
    parser.add_argument("--device", type=device, help="as torch names it, by default cuda where there is one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; %(default)s, this machine alone")
    parser.add_argument("--port", type=int, default=7860, help="%(default)s; 0 takes any that is free")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name by which browsers find the page, as that of a proxy in front of it; can be given several times",
    )
    parser.add_argument("--max-megabytes", type=int, default=20, help="limit of a file that is uploaded; %(default)s")
    parser.add_argument("--max-images", type=int, default=12, help="limit of photographs in a run; %(default)s")
    parser.add_argument("--max-megapixels", type=int, default=25, help="limit of a photograph; %(default)s")
    parser.add_argument("--max-waiting", type=int, default=8, help="runs that wait, more are refused; %(default)s")
    add_endpoint(parser)
    arguments = parser.parse_args(argv)

    from lightning_sal.demo.bounds import Bounds
    from lightning_sal.demo.listening import address, is_loopback, listen, saying
    from lightning_sal.errors import UsageError
    from lightning_sal.internals.shell import installing
    from lightning_sal.tasks import load_task

    own = [load_task(task).name for task in arguments.task]
    if find_spec("gradio") is None:
        raise UsageError(f"the page needs gradio: {installing('demo')}")
    if arguments.compare == arguments.model:
        raise UsageError(f"--compare {arguments.compare} is the model itself: name another")
    bounds = Bounds(arguments.max_megabytes, arguments.max_images, arguments.max_megapixels, arguments.max_waiting)
    models = [model for model in (arguments.model, arguments.compare) if model is not None]
    check_models(models, arguments)
    segmenter = f"the segmenter {arguments.segmenter}" if arguments.segmenter else "the embedded segmenter"
    loading = f"Loading {', '.join(models)} and {segmenter}"
    with (
        TemporaryDirectory(prefix="lightning-sal-demo-") as uploads,
        listen(arguments.host, arguments.port) as listener,
    ):
        if not is_loopback(listener):
            print(
                f"warning: anyone who reaches {address(listener)} can use the GPU and the models of this machine",
                file=sys.stderr,
            )
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        print(f"{loading} ...", flush=True)
        with saying(listener, f"{loading}. This page comes by itself when they are there."):
            server = _load(models, arguments, own, bounds)
        print(f"The page is at {address(listener)} (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    return 0


def _load(models: list[str], arguments: argparse.Namespace, own: list[str], bounds: Bounds) -> uvicorn.Server:
    """Load the models, which can answer the user's own tasks, and make the server of their page."""
    from lightning_sal.inference.predictor import find_device, load_predictor

    if arguments.device is not None:
        find_device(arguments.device)

    from transformers.utils.logging import disable_progress_bar

    from lightning_sal.demo.page import build
    from lightning_sal.demo.server import server_of
    from lightning_sal.demo.visitors import Visitors
    from lightning_sal.tiny.notice import notice

    disable_progress_bar()
    predictors = {
        model: load_predictor(
            model,
            arguments.segmenter,
            device=arguments.device,
            max_new_tokens=arguments.max_new_tokens,
            reading=arguments.reading,
            **settings_of(model, arguments),
        )
        for model in models
    }
    for predictor in predictors.values():
        predictor.require_fit(own)
    notices = [notice(model, arguments.segmenter) for model in models]
    notices += [predictor.notice for predictor in predictors.values()]
    visitors = Visitors()
    page = build(predictors, bounds, visitors, ". ".join(filter(None, dict.fromkeys(notices))))
    return server_of(page, bounds, visitors, arguments.host, arguments.allow_host)
