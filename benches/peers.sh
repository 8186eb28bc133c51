#!/usr/bin/env bash
# This engine and other libraries on the same cases, side by side in one run, and the table of ratios.
#
#   benches/peers.sh PEERS SCRATCH
#
# PEERS    a folder with the other libraries' benches; those that are not there are left out with a line that says so:
#          bench_torch.py, bench_onnx.py, bench_llamacpp.py and startup's procstat.py with once.py, each of which prints JSON lines
#          {"peer", "version", "case", "threads", "dtype", "median_s", "min_s", "cpu_s", …}
# SCRATCH  a folder for results (SCRATCH/out) and for what the benches need: SCRATCH/venv/bin/python, the programs SCRATCH/peers
#          (or SCRATCH/target/release/peers) and SCRATCH/peers-burn, weights in SCRATCH/data
#
# By environment:
#   LAPIDARY  this engine's program [target/release/lapidary]      PYTHON   of the libraries [SCRATCH/venv/bin/python]
#   ROUNDS    how often all is measured [3]                        THREADS  numbers of threads [1,2]
#   BUDGET    seconds per measurement [1.0]                        SUITES   of "ops models startup" [all]
#   CASES     a regular expression that names of cases match, for this engine, and ONLY, words that they contain, joined by
#             commas, for the others [all]
#   MODELS    what this engine loads, each NAME=PATH with NAME as the others' benches have it (a path below SCRATCH/data is enough);
#             random weights of real size are written where a path is not there [vit_b16_224=vit-b16 clip_l14_336_vision=clip-vit-l14-336
#             llama_1b=tinyllama-1.1b]
#
# On a shared machine the best of several rounds is what compares: on one thread by processor time, on more by the clock. The exit
# code is 0 only if every program that is there has run and no result of this engine was wrong.
set -uo pipefail
export PYTHONDONTWRITEBYTECODE=1
PEERS=$(cd "${1:?folder of the benches of other libraries}" && pwd) || exit 2
SCRATCH=${2:?scratch folder}
mkdir -p "$SCRATCH/out" && SCRATCH=$(cd "$SCRATCH" && pwd) || exit 2
ROOT=$(cd "$(dirname "$0")/.." && pwd)
LAPIDARY=${LAPIDARY:-$ROOT/target/release/lapidary}
PYTHON=${PYTHON:-$SCRATCH/venv/bin/python}
THREADS=${THREADS:-1,2} BUDGET=${BUDGET:-1.0} ROUNDS=${ROUNDS:-3} SUITES=${SUITES:-ops models startup}
DATA=$SCRATCH/data OUT=$SCRATCH/out
failed=0

say() { echo "peers.sh: $*" >&2; }
has() { [[ " $SUITES " == *" $1 "* ]]; }
# results NAME COMMAND…: the command's lines into a file of this round.
results() {
  local file="$OUT/$1.$round.jsonl"
  shift
  "$@" > "$file" || { say "failed: $*"; failed=1; }
}
# theirs NAME PROGRAM ARGUMENTS…: the same for another library's bench, if it is there.
theirs() {
  local name=$1 program=$2
  shift 2
  case $program in
    *.py)
      [ -f "$PEERS/$program" ] || { say "left out: $PEERS/$program is not there"; return; }
      [ -x "$PYTHON" ] || { say "left out: $program, for there is no $PYTHON"; return; }
      results "$name" "$PYTHON" "$PEERS/$program" "$@" ;;
    *)
      [ -f "$program" ] || { say "left out: $program is not there"; return; }
      results "$name" "$program" "$@" ;;
  esac
}

[ -x "$LAPIDARY" ] || { say "no $LAPIDARY: cargo build --release, or set LAPIDARY"; exit 2; }
rust=$SCRATCH/peers
[ -f "$rust" ] || rust=$SCRATCH/target/release/peers
only=(${ONLY:+--only "$ONLY"})
timing=(--threads "$THREADS" --budget "$BUDGET" "${only[@]}")
models=()
for model in ${MODELS:-vit_b16_224=vit-b16 clip_l14_336_vision=clip-vit-l14-336 llama_1b=tinyllama-1.1b}; do
  path=${model#*=}
  [[ $path == /* ]] || path=$DATA/$path
  if [ ! -e "$path" ] && { has models || has startup; }; then
    "$LAPIDARY" synth "$(basename "$path")" "$path" >&2 || { say "left out: the model $path is not there"; continue; }
  fi
  models+=("${model%%=*}=$path")
done

rm -f "$OUT"/*.jsonl
for round in $(seq "$ROUNDS"); do
  say "round $round of $ROUNDS"
  if has ops; then
    results lapidary_ops "$LAPIDARY" bench --preset peers --json --threads "$THREADS" --budget "$BUDGET" ${CASES:+--case "$CASES"}
    theirs torch_ops bench_torch.py --suite gemm,attn,attn_bwd,rows,patchify,rvq "${timing[@]}"
    theirs onnx_ops bench_onnx.py --suite gemm,attn,rows,patchify "${timing[@]}"
    theirs rust_ops "$rust" --suite gemm,attn,rows,patchify,rvq "${timing[@]}"
    theirs burn_ops "$SCRATCH/peers-burn" --peer burn --suite gemm,rows "${timing[@]}"
  fi
  if has models; then
    for model in "${models[@]}"; do
      name=${model%%=*} path=${model#*=} dtypes=(f32 bf16) batches=(1)
      # Decoders are measured in the dtype that they are stored in, as others measure them; for quantised weights that is our f32.
      [[ $name == llama_* ]] && { [[ $path == *.gguf ]] && dtypes=(f32) || dtypes=(bf16); }
      [[ $name == vit_* ]] && batches=(1 8)
      for dtype in "${dtypes[@]}"; do
        for batch in "${batches[@]}"; do
          results "lapidary_$name.$(basename "$path").$dtype.$batch" "$LAPIDARY" bench --checkpoint "$path" --name "$name" \
            --dtype "$dtype" --batch "$batch" --json --threads "$THREADS" --budget "$BUDGET"
        done
      done
    done
    # One by one, so that a package that one of them lacks costs no other; and only for models that are wanted.
    for suite in vit clip llama; do
      [[ " ${models[*]}" == *" ${suite}_"* ]] || continue
      theirs "torch_$suite" bench_torch.py --suite "$suite" --data "$DATA" "${timing[@]}"
      theirs "rust_$suite" "$rust" --peer candle --suite "$suite" --data "$DATA" "${timing[@]}"
      [[ $suite == vit ]] && theirs onnx_vit bench_onnx.py --suite vit --data "$DATA" "${timing[@]}"
      [[ $suite == llama ]] && theirs llamacpp bench_llamacpp.py --data "$DATA" --dtype bf16,f32,q8_0 "${timing[@]}"
    done
  fi
  if has startup && [ -f "$PEERS/procstat.py" ] && [ -x "$PYTHON" ]; then
    # procstat NAME PEER VERSION COMMAND…: from the start of a process to its first result.
    procstat() {
      local file=$1 peer=$2 version=$3
      shift 3
      results "$file" "$PYTHON" "$PEERS/procstat.py" --peer "$peer" --version "$version" --case startup/vit_b16_224 --dtype f32 --runs 3 -- "$@"
    }
    version=$("$LAPIDARY" --version | cut -d' ' -f2)
    for model in "${models[@]}"; do
      [[ $model == vit_b16_224=* ]] && procstat lapidary_startup lapidary "$version" "$LAPIDARY" bench --checkpoint "${model#*=}" --once --threads 2
    done
    for peer in torch ort openvino; do
      procstat "${peer}_startup" "$peer" once "$PYTHON" "$PEERS/once.py" vit "$peer" --data "$DATA"
    done
    [ -f "$rust" ] && procstat candle_startup candle once "$rust" --peer candle --once vit --threads 2 --data "$DATA"
  fi
done

"$LAPIDARY" compare "$OUT"/*.jsonl || failed=1
exit "$failed"
