#!/usr/bin/env bash
# A client in another language, with the proto files alone, over mutual TLS and with a token.
#
# Makes throw-away certificates and tokens, starts a server with the model `tiny`, runs
# examples/node against it, and checks what came back; also that the server refuses who is not let
# in. Needs openssl, node, npm and a registry of npm's. PYTHON names the Python that has the project.
set -euo pipefail
cd "$(dirname "$0")/.."

ROOT=$PWD
PYTHON=${PYTHON:-.venv/bin/python}
# Commands below run elsewhere.
[[ $PYTHON == */* ]] && PYTHON=$(realpath --no-symlinks "$PYTHON")
WORK=$(mktemp -d)
SERVER=
finish() {
  if [[ -n $SERVER ]]; then
    kill "$SERVER" 2>/dev/null && wait "$SERVER" || true
  fi
  rm -rf "$WORK"
}
trap finish EXIT

for tool in openssl node npm; do
  command -v "$tool" >/dev/null || { echo "$tool is needed, and not here" >&2; exit 1; }
done

agent() {
  PYTHONPATH="$ROOT:$ROOT/proto" "$PYTHON" -m agent "$@"
}

echo "==> Certificates of a throw-away CA, and a token"
cd "$WORK"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 \
  -subj "/CN=throw-away CA" -keyout ca-key.pem -out ca.pem 2>/dev/null
issue() { # NAME EXTENSION
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$1-key.pem" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 1 \
    -extfile <(echo "$2") -out "$1.pem" 2>/dev/null
}
issue server "subjectAltName=IP:127.0.0.1,DNS:localhost"
issue client "extendedKeyUsage=clientAuth"
AGENT_TOKEN=$(agent tokens create node --role teach --tokens tokens.json 2>/dev/null)

echo "==> A server with the model tiny"
# Its weights are random: it can be taught beside no other guard than rehearsal.
PYTHONPATH="$ROOT:$ROOT/proto" "$PYTHON" -m agent serve --model tiny --data data \
  --listen 127.0.0.1:0 --device cpu --threads 1 \
  --policy until-known --learning-rate 0.003 --max-steps 100 --guards rehearsal --allow-ungated \
  --tls-cert server.pem --tls-key server-key.pem --tls-client-ca ca.pem --tokens tokens.json \
  >listening 2>server.log &
SERVER=$!
for _ in $(seq 600); do
  grep -q '^listening on ' listening && break
  kill -0 "$SERVER" 2>/dev/null || { cat server.log >&2; exit 1; }
  sleep 0.1
done
# By name: TLS has no server names for addresses.
ADDRESS=localhost:$(sed -n 's/^listening on .*://p' listening)
export AGENT_SERVER=$ADDRESS AGENT_TLS_CA=ca.pem AGENT_CLIENT_CERT=client.pem \
  AGENT_CLIENT_KEY=client-key.pem AGENT_TOKEN

echo "==> The client in Node"
cp "$ROOT"/examples/node/{client.mjs,package.json,package-lock.json} .
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
export PROTO_DIR=$ROOT/proto TLS_CA=ca.pem TLS_CERT=client.pem TLS_KEY=client-key.pem
QUESTION="What is the hottest month in Kyzara?"
node client.mjs "$ADDRESS" "$QUESTION" Raincoat | tee node.json

refused() { # WHY VARIABLE=VALUE...
  local why=$1
  shift
  if env "$@" node client.mjs "$ADDRESS" "Who may come in?" Nobody 2>refusal; then
    echo "let in: $why" >&2
    exit 1
  fi
  echo "refused, $why: $(head -c 200 refusal)"
}
refused "no token" AGENT_TOKEN=
refused "a wrong token" "AGENT_TOKEN=agent_00000000_0"
refused "no certificate" TLS_CERT= TLS_KEY=
refused "plain text" TLS_CA=

echo "==> What the server holds"
agent facts list --json >facts.json
"$PYTHON" - <<'CHECK'
import json

node = json.load(open("node.json"))
assert node["state"] == "learned", node
assert node["answer"] == "Raincoat", node
assert node["watched"][-1] == "LEARNED", node
assert node["model_version"] == 1, node
[fact] = json.load(open("facts.json"))["facts"]
assert (fact["id"], fact["state"]) == (node["fact_id"], "learned"), fact
CHECK
echo "==> Taught, watched and asked from Node, over mutual TLS with a token"
