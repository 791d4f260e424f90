#!/usr/bin/env bash
# The part of CONTRIBUTING.md's GPU checklist that fits a quarter of an hour, stage by stage, results into one folder:
#
#   bash examples/gpu_checklist.sh OUT tests bench
#   MNIST=mnist STARTS=starts MINUTES=1.5 bash examples/gpu_checklist.sh OUT digits scores
#
# MNIST is the folder of the four MNIST files; STARTS, if there is one, has weights NET.safetensors to go on from.
# A stage that fails is told in OUT/checklist.txt and ends none of the others.
set -uo pipefail

out=${1:?usage: bash examples/gpu_checklist.sh OUT STAGE...}
shift
mnist=${MNIST:-mnist} starts=${STARTS:-} minutes=${MINUTES:-1.5} batch=${BATCH:-200} images=${IMAGES:-1000}
samples=${SAMPLES:-1000} device=${DEVICE:-cuda} graphs=${GRAPHS:-true} photos=${PHOTOS:-200}
networks="fusion fusion-cvae-s fusion-cvae fcn-s fcn"
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
mkdir -p "$out"

# What is killed while it hangs must leave time for the rest.
told() {
    local limit_s=$1 began=$SECONDS
    shift
    echo "== $*"
    timeout "$limit_s" "$@"
    echo "== exit code $?, $((SECONDS - began)) s"
}

tests() {
    told 200 python -m pytest -q -m gpu -p no:cacheprovider
}

bench() {
    told 200 python -m lowlight bench --model sid-net --repeat 1 --photos "$photos" --fed --jobs 8 --device "$device" \
        --json "$out/bench.json"
}

digits() {
    local net start
    for net in $networks; do
        start=()
        if [ -n "$starts" ]; then
            start=(--start-from "$starts/$net.safetensors")
            # Begun runs have warmed up; the plain networks have no divergence to warm up.
            case $net in fcn*) ;; *) start+=(--set objective.options.kl_anneal=0) ;; esac
        fi
        told $((100 + 60 * ${minutes%.*})) python -m lowlight train --preset "fusion-mnist/$net" --photos "$mnist" \
            -o "$runs/$net" --minutes "$minutes" --batch "$batch" --learning-rate 0.012 "${start[@]}" \
            --set optimiser.warmup_steps=100 --set optimiser.freeze_norms=0.6 --set run.graphs="$graphs" \
            --set run.validate_every=1000000 --set run.checkpoint_every=300 --set run.log_every=100
        tail -n 2 "$runs/$net/log.jsonl"
        cp "$runs/$net/last.safetensors" "$out/$net.safetensors"
    done
}

scores() {
    local net weights=()
    for net in $networks; do
        [ -e "$out/$net.safetensors" ] && weights+=(--weights "$out/$net.safetensors")
    done
    told 400 python -m lowlight eval "$mnist" "${weights[@]}" --split val --samples "$samples" --images "$images" \
        --device "$device" --json "$out/scores.json"
}

for stage in "$@"; do
    case $stage in
        tests | bench | digits | scores) "$stage" 2>&1 | tee -a "$out/checklist.txt" ;;
        *) echo "there is no stage $stage; there are tests, bench, digits and scores" >&2 && exit 2 ;;
    esac
done
