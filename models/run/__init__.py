"""What the scripts share to run: flags, the run folder, device and processes, schedule, training state."""
