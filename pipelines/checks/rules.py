"""Every rule of ``kfloop check``: its id, one sentence, and what to do about it; and a finding, which is one rule broken at one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kfloop.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class CheckRule:
    """A rule.

    Attributes:
        id: Stable name, for ``--ignore`` and for SARIF.
        sentence: What is wrong where it is broken.
        hint: What to do.
        fixable: Whether ``--fix`` mends it.
    """

    id: str
    sentence: str
    hint: str
    fixable: bool = False


@dataclass(frozen=True, order=True)
class Finding:
    """A rule broken at one place.

    Attributes:
        file: File or folder.
        line: Line in the file, from 1.
        rule: Id of the rule.
        message: One sentence that names step and value.
    """

    file: Path
    line: int
    rule: str
    message: str


def _rule(name: str, sentence: str, hint: str, *, fixable: bool = False) -> CheckRule:
    return CheckRule(id=name, sentence=sentence, hint=hint, fixable=fixable)


_ALL = (
    # What would make a check pass without having looked at anything.
    _rule("nothing-found", "A folder holds no component, loop file or pipeline.", "name the folder or file that does"),
    _rule("ir-empty", "A YAML file holds nothing.", "compile the pipeline again, or delete the file"),
    _rule("ir-unreadable", "A file is not a compiled KFP v2 pipeline.", "compile it with kfp.compiler.Compiler"),
    _rule("ir-no-tasks", "A pipeline, or a part of it, has no task.", "give it tasks, or delete it"),
    _rule(
        "ir-unused",
        "An executor or component is used by no task.",
        "compile again: a compiler never writes one, so the file was edited",
    ),
    _rule(
        "ir-broken-reference",
        "A task, component or platform setting names something that is not there.",
        "compile again: the name was changed at one place only",
    ),
    _rule("ir-missing", "A pipeline of the project has no committed IR.", "kfloop compile, or --fix", fixable=True),
    _rule(
        "ir-differs",
        "The committed IR is not what the code compiles to.",
        "kfloop compile, or --fix; a pipeline of your own: compile it again",
        fixable=True,
    ),
    _rule(
        "pipeline-uncompilable",
        "A pipeline's code does not compile.",
        "mend it; the message says what KFP or Python said",
    ),
    # What a pod runs, and with what.
    _rule(
        "image-not-pinned",
        "An image can change under its name.",
        "name it by digest: repository@sha256:...; a tag that ends in -unreleased is allowed until the release",
    ),
    _rule(
        "packages-at-runtime",
        "A step installs packages when it starts.",
        "put them into the image; install_kfp_package=False and no packages_to_install",
    ),
    _rule(
        "resources-missing",
        "A step lacks a request or limit of CPU or memory.",
        "set_cpu_request, set_cpu_limit, set_memory_request, set_memory_limit",
    ),
    _rule("timeout-missing", "A step may hang for ever.", "kfp.kubernetes.set_timeout(task, seconds)"),
    _rule(
        "deadline-missing",
        "A run may last for ever.",
        "dsl.PipelineConfig(active_deadline_seconds=...)",
    ),
    _rule(
        "shared-memory-missing",
        "A step with a GPU has the 64 MB of /dev/shm that a pod gets: data loaders end with a bus error.",
        "kfp.kubernetes.empty_dir_mount(task, volume_name='dshm', mount_path='/dev/shm', medium='Memory')",
    ),
    _rule(
        "runs-as-root",
        "A step may run as root.",
        "kfp.kubernetes.set_security_context(task, run_as_user=1000, run_as_non_root=True)",
    ),
    # What is public by design.
    _rule(
        "secret-parameter",
        "A parameter looks like a secret, and every parameter of KFP is public.",
        "take it from a Secret: kfp.kubernetes.use_secret_as_env",
    ),
    _rule(
        "secret-value",
        "A value looks like a secret, and stands in the file for everybody to read.",
        "revoke it, and take its successor from a Secret: kfp.kubernetes.use_secret_as_env",
    ),
    # What runs again, and what does not.
    _rule(
        "caching-not-explicit",
        "A step does not say whether it is cached, and backends differ.",
        "task.set_caching_options(True) or (False)",
    ),
    _rule(
        "caching-side-effect",
        "A step that changes or reads the world is cached: the second run skips it and succeeds.",
        "task.set_caching_options(False)",
    ),
    _rule(
        "retry-not-idempotent",
        "A step that changes the world is retried, so it may do so twice.",
        "no set_retry on it; or make it idempotent and rename it, or --ignore this rule",
    ),
    # What KFP's backends and its local runner do not do alike.
    _rule(
        "if-named-output",
        "A bare If at the top hangs on a named output: kfp.local skips the branch and succeeds.",
        "add dsl.Else, or let the component return one value and compare task.output",
    ),
    _rule(
        "condition-quote",
        "A condition compares with text that holds a quote or backslash: kfp.local reads it as code.",
        "compare with a plain word",
    ),
    _rule(
        "one-of-artifacts",
        "dsl.OneOf chooses among artifacts, which kfp.local refuses.",
        "choose among parameters, or let one step write the artifact",
    ),
    _rule(
        "nested-artifacts-only",
        "A nested pipeline takes artifacts and no parameter, which kfp.local refuses.",
        "give it a parameter too",
    ),
    _rule(
        "loop-named-output",
        "dsl.ParallelFor at the top runs over a named output, which kfp.local does not find.",
        "let the component return the list alone, and loop over task.output",
    ),
    # The rooms.
    _rule("components-none", "A folder of components holds none.", "kfloop new component NAME"),
    _rule(
        "room-incomplete",
        "A component's folder lacks a file.",
        "each has __init__.py, component.py, its core and README.md",
        fixable=True,
    ),
    _rule(
        "room-unlisted",
        "The components on disk and those in the list are not the same.",
        "list each in the table of components/README.md, as [name](name/README.md)",
        fixable=True,
    ),
    _rule("shell-unreadable", "component.py cannot be read or imported.", "mend it; the message says where"),
    _rule("shell-empty", "component.py defines no KFP component.", "decorate a function with @dsl.component"),
    _rule(
        "shell-imports",
        "component.py imports more than KFP at its top.",
        "import inside the function: whoever compiles the pipeline must not need torch",
    ),
    _rule("shell-thick", "A shell does work that belongs to the core.", "move it to the core, and call it"),
    _rule(
        "readme-signature",
        "README.md and the signature do not name the same inputs and outputs.",
        "name each artifact and parameter as `name`, in rows that begin with | in | and | out |",
    ),
    _rule(
        "harness-fails",
        "A component, run in this process on a section that cannot be, does not refuse it as it should.",
        "the message says what happened; kfloop.testing.Harness repeats it",
    ),
    # The loop files.
    _rule("loop-empty", "A loop file holds nothing.", "write one with: kfloop init"),
    _rule("loop-invalid", "A loop file is not what the config takes.", "the message names key and value"),
    _rule(
        "loop-pipeline",
        "A pipeline does not take what this loop file gives, or asks for more.",
        "compile again with the kfloop that runs it, or take the arguments it names into the pipeline",
    ),
)
RULES = {rule.id: rule for rule in _ALL}


def known_rules(names: tuple[str, ...]) -> frozenset[str]:
    """The ids in ``names``.

    Raises:
        ConfigError: One is unknown.
    """
    for name in names:
        if name not in RULES:
            raise ConfigError(f"no rule is called '{name}'", hint=nearest(name, RULES))
    return frozenset(names)
