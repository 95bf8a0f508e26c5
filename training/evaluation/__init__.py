"""Measures a model: tasks, metrics, baselines, reports."""
