"""The general path of a policy: any image-text-to-text model, by what transformers promises of all of them."""
