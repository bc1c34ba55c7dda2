"""What libraries do not promise, or need to be told in one place: a file each; a test of each says in words what moved.

Of transformers it stands in `policy.backbone`, of peft in `policy.adapters`, of strategies in `modules.strategies`.
"""
