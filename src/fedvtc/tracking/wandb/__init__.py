"""The tracker of Weights & Biases. wandb is imported here only."""
