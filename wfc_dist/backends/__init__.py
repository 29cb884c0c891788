"""How and where the rounds are carried out."""
