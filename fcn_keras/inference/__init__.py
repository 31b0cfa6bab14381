"""A model -> the class of every pixel of images of any size."""
