"""Training: recipes, augmentation, losses, schedules and the Lightning fit."""
