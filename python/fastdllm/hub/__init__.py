"""Checkpoints by name: released models, the Hub, the cache folder, sizes before anything starts.

Nothing here imports torch, or huggingface_hub before something is downloaded.
"""
