"""Other tools' data: traces written for trainers and the hub, attempts read from the authors' data sets."""
