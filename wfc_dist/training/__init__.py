"""Trains one LoRA adapter on one data set, without knowledge of rounds, Ray or other adapters. Start at `trainer`."""
