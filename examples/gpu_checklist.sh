#!/usr/bin/env bash
# The part of CONTRIBUTING.md's GPU checklist that fits a quarter of an hour, stage by stage, results into one folder:
#
#   bash examples/gpu_checklist.sh OUT tests bench
#   MNIST=mnist STARTS=starts MINUTES=8 bash examples/gpu_checklist.sh OUT digits
#   MNIST=mnist IMAGES=500 bash examples/gpu_checklist.sh OUT scores
#
# MNIST is the folder of the four MNIST files; STARTS, if there is one, has weights NET.safetensors to go on from. The
# networks train and are scored side by side; where NVIDIA's MPS is at hand, their kernels run at the same time.
# A stage that fails is told in OUT/checklist.txt and ends none of the others.
set -uo pipefail

out=${1:?usage: bash examples/gpu_checklist.sh OUT STAGE...}
shift
mnist=${MNIST:-mnist} starts=${STARTS:-} minutes=${MINUTES:-8} batch=${BATCH:-200} images=${IMAGES:-500}
samples=${SAMPLES:-1000} device=${DEVICE:-cuda} graphs=${GRAPHS:-true} photos=${PHOTOS:-200}
networks="fusion fusion-cvae-s fusion-cvae fcn-s fcn"
runs=$(mktemp -d)
mps=$runs/mps
trap 'together_no_more; rm -rf "$runs"' EXIT
mkdir -p "$out"

# What hangs is killed, so that the rest has its time.
told() {
    local limit_s=$1 began=$SECONDS
    shift
    echo "== $*"
    timeout --kill-after 5 "$limit_s" "$@"
    echo "== exit code $?, $((SECONDS - began)) s"
}

# Processes take turns on a GPU, unless this service lets them share it. It belongs to this script alone.
together() {
    command -v nvidia-cuda-mps-control >/dev/null || return 0
    export CUDA_MPS_PIPE_DIRECTORY="$mps" CUDA_MPS_LOG_DIRECTORY="$mps"
    mkdir -p "$mps" && nvidia-cuda-mps-control -d
}

together_no_more() {
    [ -d "$mps" ] || return 0
    echo quit | CUDA_MPS_PIPE_DIRECTORY="$mps" timeout --kill-after 5 10 nvidia-cuda-mps-control
    rm -rf "$mps"
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

# What each network prints is shown when all are done.
side_by_side() {
    local net
    together
    for net in $networks; do "$1" "$net" >"$runs/$net.log" 2>&1 & done
    wait
    together_no_more
    for net in $networks; do tail -n 12 "$runs/$net.log"; done
}

tests() {
    told 200 python -m pytest -q -m gpu -p no:cacheprovider
}

bench() {
    told 200 python -m lowlight bench --model sid-net --repeat 1 --photos "$photos" --fed --jobs 8 --device "$device" \
        --json "$out/bench.json"
}

train() {
    local net=$1 start=()
    [ -n "$starts" ] && start=(--start-from "$starts/$net.safetensors")
    told $((150 + 60 * ${minutes%.*})) python -m lowlight train --preset "fusion-mnist/$net" \
        --photos "$mnist" -o "$runs/$net" --minutes "$minutes" --batch "$batch" --learning-rate 0.012 "${start[@]}" \
        --device "$device" --set optimiser.warmup_steps=100 --set optimiser.freeze_norms=0.7 \
        --set run.graphs="$graphs" --set run.validate_every=1000000 --set run.checkpoint_every=1000 \
        --set run.log_every=200
    tail -n 2 "$runs/$net/log.jsonl"
    cp "$runs/$net/last.safetensors" "$out/$net.safetensors"
}

score() {
    told 400 python -m lowlight eval "$mnist" --weights "$out/$1.safetensors" --split val --samples "$samples" \
        --images "$images" --device "$device" --json "$out/$1.json"
}

digits() {
    side_by_side train
}

scores() {
    side_by_side score
}

for stage in "$@"; do
    case $stage in
        tests | bench | digits | scores) "$stage" 2>&1 | tee -a "$out/checklist.txt" ;;
        *) echo "there is no stage $stage; there are tests, bench, digits and scores" >&2 && exit 2 ;;
    esac
done
