"""Find wrong captions: detectors, their fixed combination, and its calibration on planted errors."""
