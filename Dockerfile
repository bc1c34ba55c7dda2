# lightning-sal with its extras, for a machine with NVIDIA GPUs or without one; docs/docker.md says how it is used.
#   docker build -t lightning-sal .
#   docker run --rm --gpus all -v "$PWD/runs:/project/runs" lightning-sal segment
# The wheels of torch bring CUDA's libraries, so the base needs none; Ubuntu 24.04 has Python 3.12.
ARG BASE_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
FROM ${BASE_IMAGE}

# A compiler, since triton builds its launchers when they are first needed.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends build-essential ca-certificates python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv
ENV PATH=/opt/lightning-sal/.venv/bin:/opt/uv/bin:$PATH \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON=python3.12 \
    UV_PYTHON_DOWNLOADS=never

# The packages first, in the versions that pyproject.toml pins: a change of the code does not install them anew.
WORKDIR /opt/lightning-sal
COPY pyproject.toml README.md LICENSE ./
RUN uv sync --no-default-groups --all-extras --no-extra fiftyone --no-install-project
COPY lightning_sal ./lightning_sal
COPY callbacks ./callbacks
COPY datamodules ./datamodules
COPY conf ./conf
RUN uv sync --no-default-groups --all-extras --no-extra fiftyone --no-editable

# Not as root. What it writes lies in /project, and downloaded models in its home, so that both can be mounted.
ARG USER_ID=1000
RUN useradd --create-home --non-unique --uid ${USER_ID} saliency \
 && install --directory --owner saliency /project /home/saliency/.cache/huggingface
USER saliency
WORKDIR /project
ENV HOME=/home/saliency PYTHONUNBUFFERED=1
EXPOSE 7860
# In this form SIGTERM, which `docker stop` sends, reaches the training, which then writes a checkpoint.
ENTRYPOINT ["lightning-sal"]
CMD ["--help"]
