# One image for head, workers and drivers; models and data are mounted, never in it.
#   CPU:  docker build -t urgency-ray:0.3.0-cpu .
#   CUDA: docker build -t urgency-ray:0.3.0-cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
FROM python:3.11-slim-trixie

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# KubeRay's probes of a node call wget.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget=1.25.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --gid 100 ray

# PyTorch's wheels for CPUs. Those of PyPI bring CUDA along, and need no more of the machine than its driver.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# The dependencies first, of a package that is empty: an edit of the code leaves their layer as it is.
WORKDIR /opt/urgency_ray
COPY pyproject.toml constraints.txt ./
RUN mkdir urgency_ray \
    && touch urgency_ray/__init__.py README.md LICENSE \
    && pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" .

COPY README.md LICENSE ./
COPY urgency_ray urgency_ray
COPY jobs jobs
COPY configs configs
RUN pip install --no-cache-dir --no-deps .

# By number: Kubernetes cannot tell of a name whether it is root's.
USER 1000:100
WORKDIR /home/ray
CMD ["urgency-ray", "--help"]
