"""What `skillfactory doctor` looks at: small checks of this machine, its libraries, a recipe, a model, a run."""
