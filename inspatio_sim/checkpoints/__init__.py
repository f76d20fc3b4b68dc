"""Files of weights go in; tensors by name come out, and the way back. No model is known here: names and shapes are."""
