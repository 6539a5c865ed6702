#!/usr/bin/env bash
# Pretrains on drawn pictures without labels, then labels their pixels and estimates their depth:
# from the pretrained encoder and from scratch, whole and frozen, on all training pictures and on
# fifty. FOLDER gets everything; what is there already is not done again.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:?usage: run.sh FOLDER}
python=${PYTHON:-python}
[ -e "$folder/world/images" ] || "$python" experiments/dense/draw.py "$folder/world" --count 500
if [ ! -e "$folder/few" ]; then
    mkdir -p "$folder"/few/{images,masks,depths}/{train,test}
    for kind in images masks depths; do
        for file in "$folder/world/$kind/train"/00[0-5]*.png; do ln -s "$(realpath "$file")" "$folder/few/$kind/train"; done
        for file in "$folder/world/$kind/test"/*.png; do ln -s "$(realpath "$file")" "$folder/few/$kind/test"; done
    done
fi
run() {
    [ -e "$2/result.json" ] || "$python" -m byol_jax.main_loop --config="configs/$1" --workdir="$2" "${@:3}"
}
"$python" -m byol_jax.main_loop --config=configs/byol.py:folder --workdir="$folder/byol" \
    --config.data.dir="$folder/world/images" --config.model.encoder=micro_resnet \
    --config.model.stem=patch --config.data.image_size=64 --config.batch_size=64 \
    --config.total_epochs="${EPOCHS:-60}" --config.gallery.max_images=0
for world in few world; do
    for weights in checkpoint random; do
        for preset in "" :frozen; do
            common=(--config.checkpoint="$folder/byol" --config.weights="$weights"
                --config.data.name=folder --config.data.images="$folder/$world/images"
                --config.batch_size=16 --config.total_steps="${STEPS:-400}" --config.seeds=3)
            run "segmentation.py$preset" "$folder/segmentation-$world-$weights${preset/:/-}" \
                "${common[@]}" --config.data.masks="$folder/$world/masks" \
                --config.data.classes=wall,stripes,checks,dots,rings --config.output_stride=4 \
                --config.crop_size=65 --config.head.channels=64 --config.head.dilation=2 \
                --config.learning_rates="(0.1,)"
            run "depth.py$preset" "$folder/depth-$world-$weights${preset/:/-}" \
                "${common[@]}" --config.data.depths="$folder/$world/depths" \
                --config.input_height=64 --config.input_width=64 --config.up_channels="(32, 16)" \
                --config.learning_rates="(0.03,)"
        done
    done
done
