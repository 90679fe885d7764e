"""Pictures from plain arrays: overlays, gallery, plots, the drawn architecture, the write-up."""
