"""SFT and RL done by other systems in environments of their own: verl and LLaMA-Factory."""
