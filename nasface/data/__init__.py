"""Landmark schemes, data sets, preparation and batched augmentation."""
