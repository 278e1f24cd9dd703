"""Networks: one file per paper's tables. They are plain `nn.Sequential`s that return logits or parameters."""
