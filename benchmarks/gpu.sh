#!/usr/bin/env bash
# Measure on one GPU what cannot be measured without one; see docs/gpu.md:
#
#   benchmarks/gpu.sh parity    does a GPU compute what the CPU does, in the memory that was planned?
#   benchmarks/gpu.sh ladder    tokens per second from plain float32 to full speed, rung by rung
#   benchmarks/gpu.sh large     how much of the device a network of 1.1B parameters uses
#   benchmarks/gpu.sh peers     the same training step beside those of others
#   benchmarks/gpu.sh decode    generation, beside what the memory's bandwidth allows
#
# GPU_DRY_RUN=1 tries a part with tiny sizes on the CPU. Each part ends within GPU_SECONDS (450),
# writes OUT (benchmarks/results) /gpu-PART.json, says how many of its bars of benchmarks/bars.yaml
# are met, and ends with exit code 1 if not all are. Nothing is downloaded.
set -euo pipefail

part=${1:-}
case $part in
  parity | ladder | large | peers | decode) ;;
  *)
    echo "usage: benchmarks/gpu.sh parity|ladder|large|peers|decode" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
python=${PYTHON:-}
if [ -z "$python" ]; then
  python=$PWD/.venv/bin/python
  [ -x "$python" ] || python=python3
fi

# What a part imports that a machine with PyTorch and Lightning may lack: package=module.
needed="jsonargparse=jsonargparse docstring-parser=docstring_parser typeshed-client=typeshed_client
  sentencepiece=sentencepiece safetensors=safetensors rich=rich markdown-it-py=markdown_it mdurl=mdurl
  pygments=pygments filelock=filelock torchmetrics=torchmetrics numpy=numpy pyyaml=yaml"
[ "$part" = parity ] && needed="$needed pytest=pytest pluggy=pluggy iniconfig=iniconfig
  tensorboard=tensorboard absl-py=absl grpcio=grpc markdown=markdown pillow=PIL protobuf=google.protobuf
  tensorboard-data-server=tensorboard_data_server werkzeug=werkzeug"
# What it can do without: it is installed from its wheel where there is one.
wheels=${WHEELS:-.whl}
for peer in litgpt transformers; do
  compgen -G "$wheels/$peer-*.whl" >/dev/null && needed="$needed $peer=$peer"
done
# shellcheck disable=SC2086
missing=$("$python" - $needed <<'PYTHON'
import sys
from importlib.util import find_spec


def there(module):
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


print(*(pair.split("=")[0] for pair in sys.argv[1:] if not there(pair.split("=")[1])))
PYTHON
)

if [ -n "$missing" ]; then
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if [ ! -d "$wheels" ]; then
    echo "missing: $missing; where there is a network: python3 -m pip download --no-deps" \
      "--only-binary=:all: --python-version $version -d $wheels $missing" >&2
    exit 2
  fi
  # A folder on PYTHONPATH and no venv: one made from a venv would not see that one's PyTorch.
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  # shellcheck disable=SC2086
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --find-links "$wheels" \
    --disable-pip-version-check --target "$site" $missing
  export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi

export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
BENCH_COMMAND="benchmarks/gpu.sh $part" "$python" -m "benchmarks.gpu_$part"
