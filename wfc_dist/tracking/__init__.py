"""Trackers (`run.track`): what the metrics logs and the scores hold, written for TensorBoard, MLflow and Weights & Biases."""
