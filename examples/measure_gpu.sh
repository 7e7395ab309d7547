#!/usr/bin/env bash
# Everything that only a GPU can tell, in one go: tests, parity, feeds, steps, masks, CIFAR-10.
#
#   examples/measure_gpu.sh PHOTOS CIFAR OUT
#
# PHOTOS and CIFAR are folders of images with train/ and test/ (or val/) in them: photographs of
# usual size (Imagenette, ImageNet) and CIFAR-10. Figures go to OUT/*.json with every version and
# option, what was printed to OUT/logs. A step that fails is named at the end and the rest goes on; run
# again, the script leaves out what is done. SMALL=1 goes through all steps in minutes, on a CPU too.

set -uo pipefail

[ $# -eq 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
photos=$1 cifar=$2 out=$3
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out/logs" "$out/done"
failed=()

step() { # NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    [ -e "$out/done/$name" ] && return
    echo "$name: $*"
    if "$@" >"$out/logs/$name.log" 2>&1; then
        touch "$out/done/$name"
    else
        failed+=("$name")
        tail -n 3 "$out/logs/$name.log" | sed 's/^/    /'
    fi
    echo "    $((SECONDS - start)) s"
}

fovea() { python -m fovea.tools.cli "$@"; }
held_out() { if [ -d "$1/test" ]; then echo "$1/test"; else echo "$1/val"; fi; }

if [ -n "${SMALL:-}" ]; then
    tests=("$root/tests/training/test_gpu.py") parity=(--images 8)
    views=(--batches 2 --repeats 1 --batch-size 8) feed=(--batches 2 --batch-size 16)
    nets=(ressl_demo) multi=(relicv2_small) small=(ressl_demo) masked=(--images 8)
    step_sizes=(--batch-size 8 --steps 1 --repeats 2) extract=(--images 32 --repeats 1 --image-px 64)
    recipe=(--recipe small --images 32 --fusion-epochs 1 --size 64 --batch-size 8)
    run=(--epochs 1 --optim.warmup-epochs 0 --method.infonce-epochs 0 --backbone resnet_tiny
        --batch-size 32 --method.queue-size 64)
    linear=(--epochs 1)
else
    tests=("$root/tests") parity=(--images 64)
    views=(--batches 20 --repeats 3)
    feed=(--executors dali processes --prefetch 2 4 --hw-decoder-frac 0 .65 .9)
    nets=(ressl_r50) multi=(ressl_r50_multi relicv2_r50) small=(ressl_cifar10)
    step_sizes=(--batch-size 256 --steps 20) extract=(--backbone resnet50 --autocast)
    recipe=(--recipe full) run=() linear=()
fi

# What matters most comes first: a machine may be lent for minutes.
step tests python -m pytest -q -m gpu "${tests[@]}"
step shard_photos fovea shard "$photos/train" "$out/photos"
step shard_cifar fovea shard "$cifar/train" "$out/cifar"
step shard_cifar_test fovea shard "$(held_out "$cifar")" "$out/cifar-test"
step parity fovea bench parity "$out/photos" "${parity[@]}" --out "$out/parity.json"
step feed_32 fovea bench feed "$out/cifar" --presets "${small[@]}" "${feed[@]}" --out "$out/feed_32.json"
step cifar10 fovea pretrain ressl_cifar10 --data "$out/cifar" --val "$out/cifar-test" --out "$out/cifar10" "${run[@]}"
step cifar10_linear fovea evaluate linear "$out/cifar10" --train "$out/cifar" --val "$out/cifar-test" "${linear[@]}"
step cifar10_paper fovea evaluate linear "$out/cifar10" --train "$out/cifar" --val "$out/cifar-test" --preset paper \
    "${linear[@]}"
step masks fovea mask "$out/photos" "$out/masks" --prior robust_background
step feed fovea bench feed "$out/photos" --masks "$out/masks" --presets "${nets[@]}" "${multi[@]}" "${feed[@]}" \
    --out "$out/feed.json"
step step fovea bench step "$out/photos" --preset "${nets[0]}" "${step_sizes[@]}" --out "$out/step.json"
step extract fovea bench extract "$out/photos" "${extract[@]}" --out "$out/extract.json"
step refine fovea refine "$out/photos" --out "$out/saliency" "${recipe[@]}"
step masks_network fovea mask "$out/photos" "$out/masks-network" --network "$out/saliency/network.pt" --json
step views_ressl_32 fovea bench views "$out/cifar" --recipe ressl_32 "${views[@]}" --out "$out/views_ressl_32.json"
step views_ressl fovea bench views "$out/photos" "${views[@]}" --out "$out/views_ressl.json"
step views_relicv2 fovea bench views "$out/photos" --recipe relicv2 --masks "$out/masks" "${views[@]}" \
    --out "$out/views_relicv2.json"

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]} (see $out/logs)"
    exit 1
fi
echo "all of it is in $out"
