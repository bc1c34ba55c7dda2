"""SFT data from any saliency dataset: a strong multimodal model is shown images with ground truth and says why.

    records -> samples -> requests -> client -> answers -> (picture check) -> one of two files

`samples`, `requests` and `answers` are pure; `clients` and `local` ask a model; `runner` ties them together.
"""
