"""Where the commands of the pages are run that no test of the pages runs itself.

A command that is neither run in a page's test nor listed here fails that test.
"""

from __future__ import annotations

import re

# What a whole command matches -> the file that runs it or what it starts, and what that file says of it.
ELSEWHERE = [
    (r"uv run pytest( .*)?", ".ci/run", "uv run pytest"),
    (r"uv run mkdocs build --strict", ".ci/run", "uv run mkdocs build --strict"),
    (r"uv run mkdocs serve", ".ci/run", "uv run mkdocs build --strict"),  # the same site, shown
    (r"uv sync( .*)?", ".ci/run", "uv run"),  # which syncs first
    (r"uv build", ".ci/release", "uv build"),
    (r"python3? -m venv \S+|source \S+/activate|pip install .*\.whl\S*", ".ci/release", ".whl"),
    (r"(uv run )?tensorboard --logdir runs", "tests/docs/test_tensorboard.py", "tensorboard"),
    (r"uv run python benchmarks/real_size\.py", "tests/docs/test_real_size.py", "real_size.py"),
    (r"uv run python benchmarks/gradient_noise\.py( .*)?", "tests/docs/test_gradient_noise.py", "gradient_noise.py"),
    (r"uv run python benchmarks/collapse\.py( .*)?", "tests/docs/test_collapse.py", "collapse.py"),
    (r"uv run python benchmarks/\w+\.py( .*)?", "tests/docs/test_benchmarks.py", "benchmarks"),
    (r"(uv run )?python examples/text_only\.py.*", "tests/examples", "text_only"),
    (r"(uv run )?lightning(-sal)? ablate .*", "tests/evaluation/test_ablation.py", "ablate"),
    (r"(uv run )?lightning(-sal)? replay .*", "tests/commands/test_replay.py", "replay"),
    (r"(uv run )?lightning(-sal)? demo.*", "tests/commands/test_demo.py", "demo"),
    (r"(uv run )?lightning(-sal)? annotate .*", "tests/commands/test_annotate.py", "annotate"),
    (
        r"lightning-sal convert .* --to fiftyone.*|fiftyone app launch .*",
        "tests/evaluation/test_fiftyone.py",
        "fiftyone",
    ),
    (r"export (OPENAI|GEMINI|GOOGLE)_API_KEY=.*", "tests/commands/test_annotate.py", "API_KEY"),
    # Asks OpenAI's server: one on loopback plays it there.
    (
        r"(uv run )?lightning test --config conf/eval/\w+\.yaml --config conf/eval/endpoint\.yaml(?!.*base_url).*",
        "tests/modules/test_endpoint.py",
        "conf/eval/endpoint.yaml",
    ),
    (r"lightning-sal --install-completion", "tests/test_completion.py", "install-completion"),  # writes into the home
    # Needs more lines than fit into a test: its sizes are shared out there.
    (r"lightning-sal split .*sod=2640.*", "tests/datasets/test_splitting.py", "sod=2640,sis=2467,cosod=1262"),
    # Needs a model behind an endpoint, which a server on loopback plays.
    (r"lightning-sal segment .* --model (openai|gemini):.*", "tests/commands/test_segment_endpoint.py", "segment"),
    # Needs weights of real size: the same command runs there with the embedded ones.
    (r"(uv run )?lightning(-sal)? segment .*YxZhang/.*", "tests/commands/test_segment.py", "segment"),
    # Needs weights that the hub gives on request: a small SAM 3 is named there.
    (
        r"lightning(-sal)? (segment .*facebook/sam3|test .*conf/eval/sam3\.yaml).*",
        "tests/segmenters/test_sam3_runs.py",
        "sam3.yaml",
    ),
    # Takes minutes: fewer scenes are explained there.
    (r"(uv run )?lightning(-sal)? explain --scenes 48 .*", "tests/commands/test_explain.py", "--scenes"),
    # Needs a policy and data of real size: every config is parsed there, with the options that its head states.
    (
        r"(uv run )?lightning test --config conf/eval/reasonseg\.yaml .*",
        "tests/evaluation/test_configs.py",
        "reasonseg",
    ),
    # Needs a judge behind an API, and a policy of real size: every config is parsed there.
    (r"(uv run )?lightning fit --config conf/(alignment|dr_seg)/\w+\.yaml.*", "tests/test_packaging.py", "CONFIGS"),
    # Needs SAM2 and a policy of real size, likewise.
    (
        r"(uv run )?lightning test --config conf/eval/(reasonseg|refcoco|grefcoco|coconut|coco_detection|counting)\.yaml.*",
        "tests/test_packaging.py",
        "CONFIGS",
    ),
    (r"(uv run )?lightning export runs/alignment-.*", "tests/commands/test_export.py", "export"),
    (r"hf auth login", "tests/commands/test_export_push.py", "hf auth login"),
    (r"lightning-sal export .* --push .*", "tests/commands/test_export_push.py", "--push"),
    # Another project's, which loads what is exported as transformers do.
    (r"python -m lmms_eval .*", "tests/commands/test_export.py", "from_pretrained"),
    (r"SALIENCY_SOD=\S+ python -m lmms_eval .*", "tests/examples/test_lmms_eval.py", "lmms_eval"),
    # Needs several GPUs or machines: the same strategies run there, on processes of a CPU that find each other as under
    # torchrun.
    (r"(uv run )?(torchrun|srun) .*", "tests/distributed/processes.py", "torchrun"),
    # The server is another project's, and gigabytes: it is played by one on loopback, and a real one runs by the script.
    (r"(uv venv|uv pip install --python) vllm-server.*|.*vllm serve .*", "tests/samplers/test_vllm.py", "server"),
    (r"tests/samplers/live\.sh", "tests/samplers/live.sh", "uv run pytest"),
]


def elsewhere(words: list[str]) -> tuple[str, str] | None:
    """The file that runs a command and what it says of it, or None where none is known."""
    command = " ".join(words)
    return next(((file, phrase) for pattern, file, phrase in ELSEWHERE if re.fullmatch(pattern, command)), None)
