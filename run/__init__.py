"""The parts of a run that train.py tells the story of: its data, its state, its judgement. They know the flags."""
