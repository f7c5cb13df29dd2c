"""Folders of images, and the digits of scikit-learn."""
