#!/usr/bin/env bash
# Generates the Python code of every .proto file beside it.
# With --check it writes nothing and fails if the committed code is not what would be generated.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
PATH=$(dirname "$(realpath -s "$python")"):$PATH # protoc finds protoc-gen-mypy there

generate() { # generate OUT_DIR
  mapfile -t sources < <(cd proto && find . -name '*.proto' -printf '%P\n' | sort)
  mapfile -t ours < <(printf '%s\n' "${sources[@]}" | grep ^continual/)
  "$python" -m grpc_tools.protoc -I proto --python_out="$1" --mypy_out=quiet:"$1" "${sources[@]}"
  "$python" -m grpc_tools.protoc -I proto --grpc_python_out="$1" --mypy_grpc_out=quiet:"$1" \
    "${ours[@]}"
}

if [ "${1:-}" = "--check" ]; then
  fresh=$(mktemp -d)
  trap 'rm -rf "$fresh"' EXIT
  generate "$fresh"
  diff -r --exclude='*.proto' --exclude='__init__.py' --exclude='__pycache__' \
    --exclude='buf.yaml' --exclude='baseline.binpb' proto "$fresh" ||
    { echo "The generated code is stale: run 'make proto' and commit the result." >&2; exit 1; }
else
  generate proto
fi
