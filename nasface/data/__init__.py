"""Landmark schemes, datasets, preparation and batched augmentation."""
