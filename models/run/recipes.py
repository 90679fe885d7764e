"""Recipes (`--recipe`): named sets of flags, for each script what a user would type."""

SAMPLES = "--size 416 --per-class 20"
HEAD = (
    "--epochs 6 --batch-size 512 --lr 5e-4 --weight-decay 0.05 --area-weight 0.5 --held-out 0 "
    "--dropout 0.2"
)

RECIPES: dict[str, dict[str, str]] = {
    # Minutes: a frozen network and a shallow head, steps 1 and 2 alone; for few pixels, too.
    "quick": {
        "sample_features": f"{SAMPLES} --context image,half,5,11",
        "train_cls": f"{HEAD} --mixup 1 --input-dropout 0.3 --min-steps auto",
    },
    # Two hours: then end to end through random pixels of augmented crops, which are as large as the
    # input, so that context windows see as much as in whole images.
    "best": {
        "sample_features": f"{SAMPLES} --context image,5,11",
        "train_cls": f"{HEAD} --hidden 512 --dropout 0.5 --min-steps 800",
        "train_seg": "--finetune-backbone --backbone-lr 1e-4 --lr 3e-4 --batch-size 16 "
        "--frozen-stages 2 --pixels 1024 --crop 416 --scale 0.5,1.75 --flip --jitter 0.3 "
        "--lovasz 1 --ema 0.998 --stride 4 --epochs 12",
        "evaluate": "--tta flip,1.25",
        "visualize": "--tta flip,1.25",
    },
}
