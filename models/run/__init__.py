"""What scripts share to run: flags, run folder, device, processes, schedule, training."""
