"""The verbs of `prunedge`, what each does, and what each needs that a plain install lacks."""

from __future__ import annotations

# What each verb does, in a line: `--help` loads none of them.
VERBS = {
    "demo": "All of it on 2,624 photographs of solar cells, to a report.",
    "check": "What is in a folder of images? Unreadable files, leaks between splits.",
    "patches": "Cut patches from photographs with damage masks.",
    "groups": "Which channels of a model leave together, and which can't?",
    "train": "Teach a model your images.",
    "audit": "Which criterion is right on your model and images?",
    "prune": "Teach a model your images, then remove the channels that they don't need.",
    "show": "Each step of a run, before and after.",
    "evaluate": "How good is a run or a bundle on other labelled images? With intervals.",
    "export": "A bundle for the device, compared with torch on real images.",
    "bench": "Time, memory and energy of bundles, here or on a device.",
    "predict": "What a model answers to images, as a CSV.",
    "inspect": "Look for damage in photographs, folders, videos and cameras.",
    "compare-inspections": "What is new, what grew, what is gone between two inspections?",
    "agent": "Inspect what arrives, and publish findings over MQTT.",
    "sign": "Announce a bundle to devices in the field, signed.",
    "report": "One HTML page of a run or a study; cards of an inspection's defects.",
    "study": "Many runs, one table.",
}
HIDDEN = ("probe",)  # for prunedge itself
# What `prunedge study` knows beside the file of a grid.
STUDIES = ("crossval", "epochs", "criteria", "models", "status")

# What a plain install lacks, and the part of prunedge that brings it.
EXTRAS = {"elpv_dataset": "demo"}
TRAINING = {
    "yaml",
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "torchmetrics",
    "sklearn",
    "scipy",
    "imagehash",
    "safetensors",
    "tomli_w",
    "onnx",
    "onnxscript",
    "filelock",
    "fsspec",
    "plotly",
}
