"""A run in Weights & Biases. Only here is wandb imported."""
