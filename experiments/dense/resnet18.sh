#!/usr/bin/env bash
# ResNet-18 at 128 px: pretrains on 1,000 drawn pictures without labels, then trains segmentation,
# depth and detection on all training pictures and on fifty, from the pretrained encoder and from
# scratch, three seeds. FOLDER gets everything; what is there already is not done again. For a GPU,
# or a night on a processor.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:?usage: resnet18.sh FOLDER}
python=${PYTHON:-python}
[ -e "$folder/world/boxes" ] || \
    "$python" experiments/dense/draw.py "$folder/world" --count 1000 --size 128
if [ ! -e "$folder/few" ]; then
    "$python" experiments/dense/draw.py "$folder/few" --count 1000 --size 128 --few 50
fi
run() {
    [ -e "$2/result.json" ] || "$python" -m byol_jax.main_loop --config="configs/$1" --workdir="$2" "${@:3}"
}
"$python" -m byol_jax.main_loop --config=configs/byol.py:folder --workdir="$folder/byol" \
    --config.data.dir="$folder/world/images" --config.model.encoder=resnet18 \
    --config.model.stem=imagenet --config.data.image_size=128 --config.batch_size=128 \
    --config.total_epochs="${EPOCHS:-300}" --config.gallery.max_images=0
for world in few world; do
    for weights in checkpoint random; do
        common=(--config.checkpoint="$folder/byol" --config.weights="$weights"
            --config.seeds="${SEEDS:-3}" --config.total_steps="${STEPS:-1000}")
        pixels=(--config.batch_size=16 --config.data.name=folder
            --config.data.images="$folder/$world/images")
        run segmentation.py "$folder/segmentation-$world-$weights" "${common[@]}" "${pixels[@]}" \
            --config.data.masks="$folder/$world/masks" --config.output_stride=8 \
            --config.data.classes=wall,stripes,checks,dots,rings --config.crop_size=129 \
            --config.head.channels=64 --config.head.dilation=2 --config.learning_rates="(0.03,)"
        run depth.py "$folder/depth-$world-$weights" "${common[@]}" "${pixels[@]}" \
            --config.data.depths="$folder/$world/depths" --config.input_height=128 \
            --config.input_width=128 --config.up_channels="(128, 64, 32, 16)" \
            --config.learning_rates="(0.03,)"
        run detection.py "$folder/detection-$world-$weights" "${common[@]}" \
            --config.data.name=coco --config.data.dir="$folder/$world/boxes" \
            --config.data.train_split=train --config.data.eval_split=test --config.batch_size=8 \
            --config.accumulate=1 --config.image_sizes=128 --config.test_image_size=128 \
            --config.longest_side=128 --config.anchor_sizes="(32, 64, 96)" --config.regions=32 \
            --config.test_regions=100
    done
done
