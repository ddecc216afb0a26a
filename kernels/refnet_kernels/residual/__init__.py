"""``shortcut + x``, element by element, then optionally ReLU (rule A2).

TF-Slim: the last line of ``resnet_v2.bottleneck``; with ReLU that of ``resnet_v1.bottleneck``.
"""
