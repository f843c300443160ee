"""Start-up checks, devices, memory, files, logs and processes of a run."""
