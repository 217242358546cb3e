"""Optuna studies that several processes and machines work on."""
