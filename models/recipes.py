"""Named sets of flags (`--recipe`): for each script, what a user would type. Flags given beside a recipe win."""

RECIPES: dict[str, dict[str, str]] = {
    # A wider view in steps 1 and 2, then end to end through random pixels of augmented crops, then averaged views.
    "best": {
        "sample_features": "--size 320 --context image,5,11 --per-class 10",
        "train_cls": "--epochs 12 --dropout 0.2 --weight-decay 0.05",
        "train_seg": "--finetune-backbone --backbone-lr 3e-4 --frozen-stages 1 --pixels 1024 --crop 320 "
        "--scale 0.5,1.75 --flip --jitter 0.3 --lovasz 1 --ema 0.998 --stride 4 --epochs 30",
        "evaluate": "--tta flip,0.75,1.25 --dilate 1 --refine",
        "visualize": "--tta flip,0.75,1.25 --dilate 1 --refine",
    },
}
