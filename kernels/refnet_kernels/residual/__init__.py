"""``shortcut + x``, element by element (rule A2). TF-Slim: the last line of ``resnet_v2.bottleneck``."""
