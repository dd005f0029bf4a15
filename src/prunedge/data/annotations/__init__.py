"""Annotated photographs in (COCO, YOLO, LabelMe, CVAT, Label Studio); the shapes of each out, from
which its mask is drawn.
"""
