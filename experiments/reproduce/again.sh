#!/bin/sh
# Removal at 20 % swapped captions again, with 24 seeds that no verdict uses: `sh experiments/reproduce/again.sh`, 45 minutes
# on two cores, resumes. Then `python experiments/reproduce/record.py --again ...` (RESULTS.md) stores it.
set -e
cd "$(dirname "$0")/../.."
out=removal-again
seeds='train.seeds=[8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31]'

run() {  # OUT EPOCHS [--set SETTING]...
    folder=$out/$1 epochs=$2
    shift 2
    clipmem run experiments/reproduce/redundant/base.toml --set 'data.emoji_artists.artists=[]' \
        --set split.shared=500 --set split.candidate=2500 --set split.independent=2500 --set split.external=900 \
        --set split.planted_share=0.2 --set "$seeds" --set train.epochs="$epochs" "$@" --out "$folder"
}

remove() {  # WAY EPOCHS [--set SETTING]
    way=$1 epochs=$2
    shift 2
    run "$way-$epochs" "$epochs" --set mitigate.remove.count=500 --set mitigate.remove.role=candidate \
        --set mitigate.remove.by="$way" --set protocol=f-only "$@"
}

run none 12
for way in clipmem similarity g-alignment; do remove $way 12 --set mitigate.remove.scores=$out/none; done
for way in random planted; do remove $way 12; done
# equal steps: fewer pairs, more passes
remove clipmem 14 --set mitigate.remove.scores=$out/none
remove random 14
