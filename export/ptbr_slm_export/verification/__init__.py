"""An export against the model it was made from: questions, answers, checks."""
