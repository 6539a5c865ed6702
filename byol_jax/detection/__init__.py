"""A detector on an encoder, in PyTorch: torchvision's Faster R-CNN."""
