#!/usr/bin/env bash
# Installs the lowest versions that pyproject.toml admits into an environment of their own, and runs
# with them what uses them most: export, decode, check, text, command line, server, chat, pictures.
# usage: lowest.sh PYTHON FOLDER TORCH     PYTHON: that of the project's own environment
set -euo pipefail
cd "$(dirname "$0")/../.."
own=${1:?usage: lowest.sh PYTHON FOLDER TORCH}
folder=${2:?usage: lowest.sh PYTHON FOLDER TORCH}
torch=${3:?usage: lowest.sh PYTHON FOLDER TORCH}
python=$folder/bin/python

"$own" -m venv --clear "$folder"
"$own" tests/install/lowest.py pyproject.toml export serve chat plot >"$folder/pins.txt"
"$python" -m pip install -q --upgrade "pip>=25.1"
"$python" -m pip install -q "$torch" -r "$folder/pins.txt"
"$python" -m pip install -q pytest hypothesis httpx openai -c "$folder/pins.txt"
"$python" -m pip install -q --no-deps .
"$python" -m pip check
"$python" -m pytest -p no:cacheprovider tests/python/test_{check,cli,engine,export,llm,precision,serve,trace,external_data}.py
