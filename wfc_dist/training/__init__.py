"""One LoRA adapter on one data set. Knows nothing of rounds, Ray or other adapters; `trainer.train_adapter` is the entrance."""
