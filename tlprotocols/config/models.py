"""The transferable stages of every model, in order: `layers`, `freeze` and `high_lr_layers` are slices of these."""

ALEXNET = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")

STAGES = {"alexnet": ALEXNET, "alexnet_small": ALEXNET}
