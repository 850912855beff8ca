"""The `motion` model: a small X3D trained on generated clips of twelve motions, which needs no download.

shapes, backdrops, tracks    what a scene is made of
choreography, scenes         the tracks of each class, and rendering
videos, clips                scenes as files, and as training clips
network, train               the network, and its training
"""
