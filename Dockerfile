# One node with GPUs: docker build -t clipmem . && docker run --gpus all --ipc host -v "$PWD:/work" clipmem run study.toml
# The base image has torch for its CUDA version. It is named by version; pin it by digest where builds must be repeatable.
ARG BASE=pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime
FROM ${BASE}

WORKDIR /opt/clipmem
COPY pyproject.toml README.md LICENSE NOTICE constraints.txt ./
COPY src src
# The torch of the image stays: constraints.txt does not name it
RUN pip install --no-cache-dir ".[hf]" -c constraints.txt && clipmem --version

RUN useradd --create-home clipmem
USER clipmem
WORKDIR /work
ENTRYPOINT ["clipmem"]
CMD ["doctor"]
