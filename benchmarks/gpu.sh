#!/usr/bin/env bash
# keras_mpt and PEFT side by side on a GPU, in bfloat16, on PyTorch and JAX (benchmarks/gpu.py), on
# a machine that may lack a network, which has Python with PyTorch, JAX, transformers and peft:
#
#   benchmarks/gpu.sh pack        where there is a network: fills .gpu/wheels, which is carried there
#   benchmarks/gpu.sh run ARGS    there: measures
#   benchmarks/gpu.sh rehearse    anywhere, without a GPU: small, by the same code
#
# ARGS are those of `python -m benchmarks.gpu`: --file FILE for the results, --budget SECONDS after
# which no case begins, --missing for those alone that FILE lacks, --backends, --kinds. Put FILE in
# docs/benchmarks/gpu.json, and `python -m benchmarks --render` makes the page of it.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/gpu_site.sh

pack() {
    pack_wheels
    du -sh .gpu/wheels
}

run() {
    use_wheels
    # What XLA has compiled serves a second run on the same machine.
    export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$KEPT/jax}
    exec "$PYTHON" -m benchmarks.gpu "$@"
}

rehearse() {
    local folder
    folder=$(mktemp -d)
    run --quick --file "$folder/gpu.json" "$@"
}

case "${1:-}" in
pack | run | rehearse) "$@" ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" ; exit 2 ;;
esac
