"""What Lightning, TensorBoard and jsonargparse do not promise, in one file each; a test of each says in words what moved.

Of transformers it stands in `policy.backbone`, of peft in `policy.adapters`, of strategies in `modules.strategies`.
"""
