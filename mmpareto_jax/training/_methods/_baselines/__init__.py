"""The published baselines against modality imbalance, as functions.

Arrays, gradients and numbers come in, and the same go out: no config, no task, no
model. It may import nothing of ours; ``training.baselines`` lists its names.
"""
