"""What a user can get wrong. The command line prints the message without a traceback and exits with 2."""


class SkillFactoryError(Exception):
    """One clear sentence that names the file, row or key and the mend."""


class RecipeError(SkillFactoryError, ValueError):
    """A recipe that cannot be read, or a setting that cannot be."""


class QuestionError(SkillFactoryError, ValueError):
    """Questions that cannot be read, made or graded."""


class ModelError(SkillFactoryError, ValueError):
    """A model folder or id that cannot be used."""


class EngineError(SkillFactoryError, RuntimeError):
    """An engine that cannot serve any request: a server that stays away, a library that is missing."""


class StoreError(SkillFactoryError, RuntimeError):
    """A run directory that another process holds, that belongs to another recipe, or that is damaged."""


class ShortageError(SkillFactoryError, MemoryError):
    """Memory has run out: says what to lower. What is finished is kept."""


class NothingLeftError(SkillFactoryError, RuntimeError):
    """A stage came to nothing: says at which step everything was lost and what to try."""


class StoppedError(SkillFactoryError, RuntimeError):
    """SIGTERM has ended a training at the end of a step, with a checkpoint: no mistake, and the exit code is 143."""
