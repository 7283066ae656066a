"""Videos: files, animations, arrays and folders of frames, cut into clips."""
