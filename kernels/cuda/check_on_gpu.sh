#!/bin/sh
# What a first run on a GPU must check: the operators against the reference, the sanitizers, timings a kernel.
# usage: kernels/cuda/check_on_gpu.sh [build folder]
set -eu
bin=${1:-build}/bin
test_program=$bin/test_cuda_operators_in_kernels
parity_program=$bin/test_operators_in_kernels
report=$(mktemp)
trap 'rm -f "$report"' EXIT

for needed in "$test_program" "$parity_program" "$bin/libtroupe_cuda.so"; do
    [ -e "$needed" ] && continue
    echo "$needed is missing: build the targets troupe_cuda, test_operators_in_kernels and" \
        "test_cuda_operators_in_kernels" >&2
    exit 1
done
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm --format=csv,noheader

# The host half needs minutes and no GPU: point it at the GPU's library, so that both halves run there.
TROUPE_CUDA_HOST_LIBRARY=$bin/libtroupe_cuda.so
export TROUPE_CUDA_HOST_LIBRARY
"$parity_program"
"$test_program" | tee "$report"
grep -q '^testing cuda NVIDIA' "$report" || { echo "the test did not run on a GPU" >&2; exit 1; }

if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do
        echo "== $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 1 "$test_program" | tail -3
        compute-sanitizer --tool "$tool" --error-exitcode 1 "$parity_program" | tail -3
    done
else
    echo "compute-sanitizer is not here: memory and races are unchecked"
fi
if command -v nsys >/dev/null; then
    nsys profile --stats=true --force-overwrite=true -o "$report.nsys" "$test_program" |
        sed -n '/cuda_gpu_kern_sum/,/^$/p'
    rm -f "$report".nsys*
else
    echo "nsys is not here: no timings"
fi
